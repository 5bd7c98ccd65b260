"""The limiters' arithmetic: how much they admit, and that the announced waits are right."""

from collections.abc import Callable
from random import Random

import pytest

from worker.simulator import Answer, Delay, Fault, Options, RateLimit
from worker.simulator.delay import draw_seconds
from worker.simulator.kinds import FAULT_KINDS, draw_fault
from worker.simulator.limiter import limiter_for
from worker.simulator.options import LimitKind
from worker.simulator.requests import Call
from worker.simulator.watch import Closures

UPDATE = Call("update", "chatcmpl-1", "")
KINDS: tuple[LimitKind, ...] = ("bucket", "fixed-window", "sliding-window")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_minute", [60, 500, 3_000])
def test_a_patient_client_gets_the_limit_and_no_more(kind: LimitKind, per_minute: int) -> None:
    limiter = limiter_for(RateLimit(per_minute, kind=kind, rejected_count=False))
    now, admitted = 1_000.0, 0
    while now < 1_000 + 300:
        admission = limiter.take(now)
        admitted += admission.admitted
        now += admission.wait_seconds
    first_burst = 1 + per_minute / 60 if kind == "bucket" else 0
    assert 5 * per_minute <= admitted <= 5 * per_minute + first_burst


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rejected_count", [True, False])
def test_a_client_that_waits_as_told_is_admitted(kind: LimitKind, *, rejected_count: bool) -> None:
    random = Random(1)
    limiter = limiter_for(RateLimit(120, kind=kind, rejected_count=rejected_count))
    now, told = 0.0, 0
    for _ in range(2_000):
        admission = limiter.take(now)
        if not admission.admitted:
            told += 1
            now += admission.wait_seconds
            assert limiter.take(now).admitted
        now += random.expovariate(4)
    assert told > 10


@pytest.mark.parametrize("kind", ["bucket", "sliding-window"])
def test_rejected_requests_use_up_the_limit_or_do_not(kind: LimitKind) -> None:
    admitted = {}
    for rejected_count in (True, False):
        limiter = limiter_for(RateLimit(60, kind=kind, rejected_count=rejected_count))
        admitted[rejected_count] = sum(limiter.take(tick / 10).admitted for tick in range(3_000))
    assert 299 <= admitted[False] <= 301
    assert 0 < admitted[True] <= 60


def test_hammering_drives_a_bucket_no_deeper_than_one_bucket() -> None:
    limiter = limiter_for(RateLimit(60, burst=5))
    for _ in range(1_000):
        admission = limiter.take(0.0)
    assert admission.wait_seconds == pytest.approx(6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_that_is_left_goes_down_and_comes_back(kind: LimitKind) -> None:
    limiter = limiter_for(
        RateLimit(60, kind=kind, burst=4 if kind == "bucket" else None, window_seconds=None if kind == "bucket" else 4)
    )
    assert [limiter.take(0.0).left for _ in range(5)] == [0.75, 0.5, 0.25, 0, 0]
    last = limiter.take(0.0)
    assert limiter.take(0.0 + last.reset_seconds + 4).left == 0.75


def test_a_window_is_full_until_it_ends() -> None:
    fixed = limiter_for(RateLimit(2, kind="fixed-window"))
    sliding = limiter_for(RateLimit(2, kind="sliding-window", rejected_count=False))
    for limiter in (fixed, sliding):
        assert [limiter.take(now).admitted for now in (0, 50, 55)] == [True, True, False]
    assert [fixed.take(now).admitted for now in (60, 61, 62)] == [True, True, False]
    assert [sliding.take(now).admitted for now in (60, 61, 110)] == [True, False, True]


def test_a_fixed_delay_is_always_the_same() -> None:
    assert [draw_seconds(delay, Random(1)) for delay in (2, 2.5, Delay(3))] == [2, 2.5, 3]


def test_delays_keep_to_their_distribution() -> None:
    random = Random(1)
    between = [Delay(1, up_to_seconds=3).draw(random) for _ in range(2_000)]
    assert 1 <= min(between) < 1.1
    assert 2.9 < max(between) <= 3
    around = sorted(Delay(4, spread=0.3).draw(random) for _ in range(2_001))
    assert around[1_000] == pytest.approx(4, rel=0.05)
    assert around[100] == pytest.approx(4 * 0.61, rel=0.05)
    assert around[1_900] == pytest.approx(4 * 1.64, rel=0.05)


def test_faults_fall_by_their_shares() -> None:
    random = Random(1)
    faults = (Fault("dropped", 0.2), Fault("internal_error", 0.1), Fault("hang", 0.5, on="get"))
    fates = [draw_fault(faults, UPDATE, b"", random) for _ in range(10_000)]
    drawn = [fate and fate.name for fate in fates]
    assert drawn.count("dropped") / 10_000 == pytest.approx(0.2, abs=0.02)
    assert drawn.count("internal_error") / 10_000 == pytest.approx(0.1, abs=0.02)
    assert set(drawn) == {"dropped", "internal_error", None}
    for kind in FAULT_KINDS:
        assert draw_fault([Fault(kind)], UPDATE, b"", random) == Fault(kind)


CONCERNED = {
    "any": (Fault("hang"), True),
    "its operation": (Fault("hang", on="update"), True),
    "another operation": (Fault("hang", on="get"), False),
    "its completion": (Fault("hang", completion_id="chatcmpl-1"), True),
    "another completion": (Fault("hang", completion_id="chatcmpl-10"), False),
    "a part of a value": (Fault("hang", holds="eas"), True),
    "a key": (Fault("hang", holds="fruit"), False),
    "an escaped value": (Fault("hang", holds="é"), True),
    "one of two": (Fault("hang", holds="eas", on="create"), False),
}


@pytest.mark.parametrize("name", CONCERNED)
def test_a_fault_concerns_the_requests_that_it_names(name: str) -> None:
    fault, concerned = CONCERNED[name]
    assert fault.concerns(UPDATE, b'{"metadata":{"fruit":"peas","name":"Ren\\u00e9","n":1}}') is concerned


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"[" * 100_000, b'{"metadata":["eas"]}'])
def test_a_body_that_makes_no_sense_holds_nothing(body: bytes) -> None:
    assert not Fault("hang", holds="eas").concerns(UPDATE, body)


def test_closures_hold_from_start_to_end_and_between_only() -> None:
    closures = Closures()
    closures.add(1, 5, now=0)
    closures.add(3, 4, now=2)
    closures.add(5, 7, now=4)
    closures.add(9, 10, now=4)
    closures.add(12, 11, now=4)
    assert [now for now in range(14) if closures.hold(now)] == [1, 2, 3, 4, 5, 6, 9]
    closures.add(21, 22, now=20)
    assert [now for now in range(30) if closures.hold(now)] == [21]


BAD: dict[str, tuple[Callable[..., object], dict[str, object]]] = {
    "seconds": (Delay, {"seconds": -1.0}),
    "up_to_seconds": (Delay, {"seconds": 2.0, "up_to_seconds": 1.0}),
    "spread": (Delay, {"seconds": 1.0, "spread": float("nan")}),
    "not both": (Delay, {"seconds": 1.0, "spread": 1.0, "up_to_seconds": 2.0}),
    "requests_per_minute": (RateLimit, {"requests_per_minute": 0}),
    "kind": (RateLimit, {"requests_per_minute": 1, "kind": "leaky"}),
    "hint": (RateLimit, {"requests_per_minute": 1, "hint": "soon"}),
    "headers": (RateLimit, {"requests_per_minute": 1, "headers": "false"}),
    "code": (RateLimit, {"requests_per_minute": 1, "code": "stop"}),
    "burst must": (RateLimit, {"requests_per_minute": 1, "burst": 0}),
    "burst goes": (RateLimit, {"requests_per_minute": 1, "burst": 2, "kind": "fixed-window"}),
    "window_seconds must": (RateLimit, {"requests_per_minute": 1, "window_seconds": 0, "kind": "fixed-window"}),
    "window_seconds goes": (RateLimit, {"requests_per_minute": 1, "window_seconds": 1}),
    "then must": (Fault, {"then": "explosion"}),
    "on must": (Fault, {"then": "hang", "on": "updates"}),
    "share of hang": (Fault, {"then": "hang", "share": 1.1}),
    "share of answer": (Fault, {"then": Answer(200), "share": -0.1}),
    "update come to 1.2": (Options, {"faults": (Fault("hang", 0.6), Fault("dropped", 0.6, on="update"))}),
    "overloaded_retry_after_seconds": (Options, {"overloaded_retry_after_seconds": float("inf")}),
    "late_seconds": (Options, {"late_seconds": -1}),
    "stale_reads_seconds": (Options, {"stale_reads_seconds": -1}),
    "stream_seconds": (Options, {"stream_seconds": -1}),
    "trim_values": (Options, {"trim_values": -1}),
    "semantics": (Options, {"semantics": "patch"}),
    "lag_seconds": (Options, {"lag_seconds": -1}),
    "update_latency": (Options, {"update_latency": -1}),
    "history": (Options, {"history": -1}),
    "port": (Options, {"port": 65_536}),
}


@pytest.mark.parametrize("name", BAD)
def test_an_order_that_makes_no_sense_is_refused_by_name(name: str) -> None:
    kind, values = BAD[name]
    with pytest.raises(ValueError, match=name):
        kind(**values)
