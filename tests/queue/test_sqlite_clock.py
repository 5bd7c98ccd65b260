"""Wall clocks that are wrong, step or differ do not affect the queue's own time."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.needs import installed, skip_not_permitted
from tests.queue.helpers import about, bury, change, claim, claim_one, finished, letters, pending_labels
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite.clock import Clocks

NOW = 1_700_000_000.0
DAY = 86_400.0


@dataclass
class Machine:
    """A computer: how long it has been up, and the error of its wall clock."""

    path: Path
    boot: str = "first"
    up: float = 1_000.0
    unix: float = NOW

    def sleep(self, seconds: float) -> None:
        self.up += seconds
        self.unix += seconds

    def boot_again(self) -> None:
        self.boot, self.up = "second", 3.0

    @asynccontextmanager
    async def queue(self, *, ahead: float = 0.0) -> AsyncIterator[SqliteQueue]:
        """Open the queue as a process whose clock is so far ahead of the wall clock."""
        clocks = Clocks(lambda: self.up, lambda: self.unix + ahead, self.boot)
        async with await SqliteQueue.open(f"sqlite:///{self.path}", clocks=clocks) as queue:
            yield queue


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "queue.db")


@pytest.mark.parametrize("opens_first", ["whose clock is right", "whose clock is wrong"])
@pytest.mark.parametrize("ahead", [DAY, -DAY, 400.0, -400.0, 50 * 365 * DAY])
async def test_what_a_process_with_a_wrong_clock_enqueues_is_due_at_once_and_ages(
    machine: Machine, ahead: float, opens_first: str
) -> None:
    first = {"whose clock is right": 0.0, "whose clock is wrong": ahead}[opens_first]
    async with machine.queue(ahead=first), machine.queue(ahead=ahead) as wrong, machine.queue() as right:
        await wrong.put([change("c-1")])
        machine.sleep(90)

        assert (await right.status()).oldest_pending_seconds == 90
        assert (await claim_one(right)).age_seconds == 90


async def test_a_step_of_the_wall_clock_neither_ends_a_lease_nor_draws_it_out(machine: Machine) -> None:
    async with machine.queue() as one, machine.queue() as two:
        await one.put([change("c-1")])
        held = await claim_one(one)
        machine.unix += 400
        assert await claim(two) == []
        assert await one.extend([held], lease_seconds=60) == []
        machine.unix -= DAY
        machine.sleep(59)
        assert await claim(two) == []
        machine.sleep(1)
        assert [again.completion_id for again in await claim(two)] == ["c-1"]
        assert await one.settle([finished(held)]) == [finished(held)]


async def test_a_worker_with_a_wrong_clock_leaves_leases_of_the_usual_length(machine: Machine) -> None:
    async with machine.queue(ahead=DAY) as wrong:
        await wrong.put([change("c-1")])
        await claim_one(wrong)
    async with machine.queue() as right:
        assert await right.next_due_seconds() == 60
        [holder] = await right.leases()
        assert [holder.since, holder.until] == [about(NOW), about(NOW + 60)]


async def test_notes_and_the_quota_do_not_go_by_the_wall_clock(machine: Machine) -> None:
    async with machine.queue() as one, machine.queue(ahead=DAY) as two:
        await two.write_note("limit", "8.3")
        await two.take_quota(10, per_minute=60, ahead_seconds=10)
        machine.sleep(5)

        assert (await one.read_notes())["limit"].age_seconds == 5
        assert (await one.take_quota(1, per_minute=60, ahead_seconds=10)).wait_seconds == about(5)


async def test_people_read_the_time_of_the_wall_clock(machine: Machine) -> None:
    async with machine.queue() as queue:
        machine.unix += DAY  # it was a day behind when the file was first opened
        await bury(queue, change("c-1"))
        [letter] = await letters(queue)
        [*_, minute] = await queue.history(1)

    assert [letter.enqueued_at, letter.died_at] == [about(NOW + DAY)] * 2
    assert (minute.starts_at, minute.dead) == (machine.unix // 60 * 60, 1)


async def test_from_one_boot_to_the_next_leases_and_ages_go_by_the_wall_clock(machine: Machine) -> None:
    async with machine.queue() as queue:
        await queue.put([change("c-1"), change("c-2")])
        await queue.claim(1, lease_seconds=60, owner="worker")
        machine.sleep(30)
    machine.boot_again()
    async with machine.queue() as queue:
        assert list(await pending_labels(queue)) == ["c-2"]
        machine.sleep(29)
        assert (await queue.status()).oldest_pending_seconds == about(59)
        assert await claim(queue) == []
        machine.sleep(1.1)
        assert list(await pending_labels(queue)) == ["c-1"]


@pytest.mark.parametrize("ahead", [DAY, 50 * 365 * DAY])
async def test_what_is_due_further_off_than_anything_can_be_is_due(machine: Machine, ahead: float) -> None:
    async with machine.queue(ahead=ahead) as queue:  # the first process of this boot: all follow its clock
        await queue.put([change("c-1"), change("c-2")])
        await queue.claim(1, lease_seconds=60, owner="worker")
    machine.boot_again()
    async with machine.queue() as queue:
        assert await queue.next_due_seconds() == 0
        assert sorted(await pending_labels(queue)) == ["c-1", "c-2"]


async def test_what_is_due_years_ahead_is_due_after_a_heartbeat_even_if_other_work_never_ends(machine: Machine) -> None:
    async with machine.queue(ahead=365 * DAY) as queue:
        await queue.put([change("c-1")])
        await queue.claim(1, lease_seconds=60, owner="worker")
    machine.boot_again()
    async with machine.queue() as queue:
        await queue.put([change("c-2"), change("c-3")])
        claims = await queue.claim(1, lease_seconds=60, owner="worker")  # finds enough without it
        assert (await queue.status()).in_flight == 2
        assert await queue.extend(claims, lease_seconds=60) == []
        assert (await queue.status()).in_flight == 1


async def test_all_processes_of_this_machine_agree_on_the_time_of_the_boot() -> None:
    script = "from worker.queue.sqlite.clock import Clocks as C; c = C.of_this_machine(); print(c.boot, c.steady())"

    async def asked(*prefix: str) -> tuple[str, float]:
        child = await asyncio.create_subprocess_exec(
            *prefix, sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await child.communicate()
        if child.returncode:
            skip_not_permitted(f"{prefix[0]} failed, which only root can do")
        boot, steady = output.decode().split()
        return boot, float(steady)

    here = Clocks.of_this_machine()
    boot, steady = await asked("unshare", "--time", "--boottime", "100000", "--fork")
    assert boot == here.boot
    assert steady == pytest.approx(here.steady(), abs=60)


@installed("faketime", "faketime")
@pytest.mark.parametrize("by", ["+1d", "-1d", "+400s"])
async def test_a_worker_that_the_wrong_time_is_told_is_one_among_others(tmp_path: Path, by: str) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    child = await asyncio.create_subprocess_exec(
        *("faketime", "--exclude-monotonic", "-f", by, sys.executable, "-m", "tests.queue.contender", "hold", url),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,  # faketime starts the command as a child process
    )
    assert child.stdout is not None
    try:
        said = msgspec.json.decode(await child.stdout.readline())
        assert abs(said["at"] - time.time()) > 300
        async with await SqliteQueue.open(url) as queue:
            assert await claim(queue) == []
            due_seconds = await queue.next_due_seconds()
            assert due_seconds is not None
            assert 0 < due_seconds <= 60
            await queue.put([change("c-2")])
            assert list(await pending_labels(queue)) == ["c-2"]
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


@pytest.mark.parametrize("ahead", [DAY, -DAY, 400.0, -400.0])
async def test_who_has_the_file_open_and_who_opens_it_agree_on_the_time_of_one_that_is_put_back(
    machine: Machine, ahead: float
) -> None:
    copy = machine.path.with_name("copy.db")
    async with machine.queue():
        pass
    shutil.copy(machine.path, copy)
    machine.boot_again()
    machine.sleep(100)
    async with machine.queue(ahead=ahead) as stayed:  # the wall clock was put right after this
        shutil.move(copy, machine.path)
        assert await stayed.next_due_seconds() is None
        async with machine.queue() as came:
            await came.put([change("c-1"), change("c-2")])
            [one] = await came.claim(1, lease_seconds=60, owner="came")
            [other] = await claim(stayed)
            assert {one.completion_id, other.completion_id} == {"c-1", "c-2"}
            assert await claim(came) == await claim(stayed) == []
            machine.sleep(60)
            assert len(await claim(came)) == 2


@pytest.mark.parametrize("ahead", [0.0, -30 * DAY, -NOW])
async def test_what_the_service_confirmed_in_another_boot_is_too_old(machine: Machine, ahead: float) -> None:
    """A flat battery: it seems to be confirmed in the future."""
    async with machine.queue() as queue:
        await queue.put([change("c-1")])
        claimed = await claim_one(queue)
        done = msgspec.structs.replace(finished(claimed), confirmed={"label": "x"})
        await queue.settle([done], keep_seconds=60)
        await queue.put([change("c-1")])
        [told] = await queue.claim(1, lease_seconds=1, owner="worker", confirmed_seconds=60)
        assert told.confirmed == {"label": "x"}
    machine.boot_again()
    machine.unix += ahead
    async with machine.queue() as queue:
        machine.sleep(2)
        [told] = await queue.claim(1, lease_seconds=60, owner="worker", confirmed_seconds=60)
        assert told.confirmed is None
