"""A clock for systems whose monotonic clock stands still while the machine sleeps."""

from worker.engine.clock import Clock, SteadyClock


class Machine:
    """Both clocks of a machine: only the wall clock sees `sleeps`."""

    def __init__(self) -> None:
        self.monotonic, self.unix = 50.0, 1_700_000_000.0
        self.steady = SteadyClock(lambda: self.monotonic, lambda: self.unix)

    def runs(self, seconds: float) -> None:
        self.monotonic += seconds
        self.unix += seconds

    def sleeps(self, seconds: float) -> None:
        self.unix += seconds


def test_the_steady_clock_follows_the_monotonic_clock_while_the_machine_runs() -> None:
    machine = Machine()
    assert machine.steady() == 50.0
    machine.runs(10.0)
    assert machine.steady() == 60.0


def test_the_steady_clock_counts_the_time_of_sleep() -> None:
    machine = Machine()
    for _ in range(2):
        machine.runs(10.0)
        machine.sleeps(3_600.0)
        machine.steady()
    assert machine.steady() == 50.0 + 20.0 + 7_200.0


def test_the_steady_clock_never_goes_back() -> None:
    machine = Machine()
    machine.sleeps(3_600.0)
    before = machine.steady()
    machine.sleeps(-3_600.0)
    assert machine.steady() == before
    machine.sleeps(60.0)
    machine.runs(1.0)
    assert machine.steady() == before + 61.0


def test_a_wall_clock_that_is_adjusted_little_by_little_changes_nothing() -> None:
    machine = Machine()
    for _ in range(100):
        machine.runs(1.0)
        machine.sleeps(0.9)
        machine.steady()
    assert machine.steady() == 150.0


def test_the_clock_of_this_machine_goes_on() -> None:
    clock = Clock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert clock.unix() > 1_700_000_000.0
