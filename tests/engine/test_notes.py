"""The notes of one worker: written when there is news, and heeded by their age."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import msgspec
import pytest

from tests.engine.parts import end, flow, halt, now, others_get_through, running
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.engine.sharing import Sharing
from worker.flow import SUCCEEDED, Cause, End, Ended, GateEvent, GateState, Operation, parse_state
from worker.queue.memory import MemoryQueue
from worker.queue.notes import EVENT, LIMIT, REFUSAL, WORKER, limit_in

REFUSED = '{"kind":"refused","number":1,"delay_seconds":19.0}'
UNAUTHORIZED = Ended(End.FAILED, "unauthorized")
REFUSED_OF_QUOTA = Ended(End.FAILED, "quota")
HALTED = '{"kind":"halted","number":1,"reason":"unauthorized"}'


class _Notes(WrappedQueue):
    """Keeps the name of each note that is written."""

    def __init__(self) -> None:
        super().__init__(MemoryQueue(clock=now))
        self.written: list[str] = []

    async def write_note(self, name: str, text: str | None) -> None:
        self.written.append(name)
        await super().write_note(name, text)


class One:
    """A worker's flow control and its notes."""

    def __init__(self) -> None:
        self.queue = _Notes()
        self.flow = flow(on_refused=self._refused)
        self.sharing = Sharing(self.queue, "one", self.flow, now)

    def _refused(self, delay_seconds: float, _: Ended) -> None:
        self.sharing.refused(delay_seconds)

    @contextmanager
    def listening(self) -> Iterator[None]:
        with running(self.sharing.run()):
            yield


@in_virtual_time
async def test_an_idle_worker_writes_its_note_every_twelve_seconds_and_no_unchanged_limit() -> None:
    one = One()
    one.flow.begin_at(5.0)
    with one.listening():
        await asyncio.sleep(3_600.0)
    assert one.queue.written.count(LIMIT) == 1
    assert one.queue.written.count(f"{WORKER}one") == pytest.approx(3_600 / 12, rel=0.1)
    assert set(one.queue.written) == {LIMIT, f"{WORKER}one"}


@in_virtual_time
async def test_a_changing_state_is_written_every_two_seconds() -> None:
    one = One()
    with one.listening():
        for tenth in range(610):
            (await one.flow.admit("c", "update")).end(SUCCEEDED)
            await asyncio.sleep(0.1)
            if tenth == 10:  # in its first second it tells of itself all the time
                assert 5 <= one.queue.written.count(f"{WORKER}one") <= 11
                one.queue.written.clear()
    assert one.queue.written.count(f"{WORKER}one") == pytest.approx(60 / 2.2, abs=3)


@in_virtual_time
async def test_the_last_note_of_a_worker_that_has_done_its_work_says_so() -> None:
    one = One()
    with one.listening():
        for _ in range(40):
            (await one.flow.admit("c", "update")).end(SUCCEEDED)
            await asyncio.sleep(0.1)
        permit = await one.flow.admit("c", "update")
        await asyncio.sleep(2.5)  # so that a note tells of it
        permit.end(SUCCEEDED)
        await asyncio.sleep(6.0)
        note = (await one.queue.read_notes())[f"{WORKER}one"]
        state = parse_state(note.text, note.age_seconds)
        assert state is not None
        assert (state.in_flight, state.rate_per_second, state.requests) == (0, 0.0, 41)


@in_virtual_time
async def test_a_worker_that_the_service_makes_wait_writes_no_more_than_an_idle_one() -> None:
    one = One()
    with one.listening():
        (await one.flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=3_600.0))
        await asyncio.sleep(60.0)
        one.queue.written.clear()
        await asyncio.sleep(1_200.0)
    assert one.queue.written.count(f"{WORKER}one") == pytest.approx(1_200 / 12, rel=0.15)


@in_virtual_time
async def test_a_halted_worker_does_not_write_a_note_because_time_passes() -> None:
    one = One()
    halt(one.flow, "quota")
    with one.listening():
        await asyncio.sleep(3_600.0)
    assert one.queue.written.count(f"{WORKER}one") == pytest.approx(3_600 / 12, rel=0.1)


@in_virtual_time
async def test_an_event_is_written_at_once_and_only_once() -> None:
    one = One()
    with one.listening():
        await asyncio.sleep(10.05)
        (await one.flow.admit("c", "update")).end(Ended(End.THROTTLED, delay_seconds=20.0))
        await asyncio.sleep(0.2)
        assert one.queue.written.count(f"{REFUSAL}one") == 1
        await asyncio.sleep(60.0)
    assert one.queue.written.count(f"{REFUSAL}one") == 1


@in_virtual_time
async def test_a_worker_ignores_its_own_events() -> None:
    one = One()
    with one.listening():
        one.sharing.gate_changed(GateEvent("halted", Cause("quota"), "update"))
        one.sharing.refused(15.0)
        await asyncio.sleep(2.0)
        assert f"{EVENT}one" in one.queue.written
        assert f"{REFUSAL}one" in one.queue.written
        end(one.flow, REFUSED_OF_QUOTA)
        assert one.flow.snapshot().gate is GateState.OPEN
        assert one.flow.snapshot().closed_for_seconds == 0.0


@in_virtual_time
async def test_another_workers_delay_is_kept_for_its_remaining_time() -> None:
    one = One()
    await one.queue.write_note(f"{REFUSAL}other", REFUSED)
    await asyncio.sleep(15.0)
    with one.listening():
        await asyncio.sleep(0.01)
        assert 3.0 < one.flow.snapshot().closed_for_seconds < 5.0


@in_virtual_time
async def test_after_another_workers_halt_the_next_failure_for_its_reason_halts() -> None:
    one = One()
    with one.listening():
        await one.queue.write_note(f"{EVENT}other", HALTED)
        await asyncio.sleep(2.0)
        assert one.flow.snapshot().gate is GateState.OPEN
        end(one.flow, REFUSED_OF_QUOTA, completion_id="a")
        assert one.flow.snapshot().gate is GateState.OPEN
        end(one.flow, UNAUTHORIZED, completion_id="b")
        assert one.flow.snapshot().halt_reason == "unauthorized"


@in_virtual_time
async def test_a_halt_from_before_the_last_resume_here_is_ignored() -> None:
    one = One()
    halt(one.flow, "unauthorized")
    await one.queue.write_note(f"{EVENT}other", HALTED)
    await asyncio.sleep(10.0)
    assert one.flow.take_probe("c")
    (await one.flow.admit("c", "update", probe=True)).end(SUCCEEDED)  # this one goes on
    await asyncio.sleep(5.0)
    with one.listening():
        await asyncio.sleep(1.0)
        end(one.flow, UNAUTHORIZED)
        assert one.flow.snapshot().gate is GateState.OPEN
        await one.queue.write_note(f"{EVENT}other", HALTED.replace("1", "2"))  # and this is a new halt
        await asyncio.sleep(2.0)
        end(one.flow, UNAUTHORIZED)
        assert one.flow.snapshot().gate is GateState.HALTED


@in_virtual_time
async def test_another_workers_successes_are_known_by_age_and_kind_of_call() -> None:
    one, other = One(), One()
    await asyncio.sleep(100.0)
    others_get_through(other.flow)
    await asyncio.sleep(5.0)
    note = msgspec.json.encode(asdict(other.flow.snapshot())).decode()
    await one.queue.write_note(f"{WORKER}other", note)
    with one.listening():
        await asyncio.sleep(3.0)

        def since(at: float, operation: Operation = "update", *, elsewhere: bool = True) -> bool:
            return one.flow.gate.others_got_through(operation, "c", at, elsewhere=elsewhere)

        assert (since(99.0), since(101.0)) == (True, False)
        assert (since(99.0, "get"), since(99.0, elsewhere=False)) == (False, False)


@in_virtual_time
async def test_a_worker_ignores_its_own_successes_in_the_notes() -> None:
    one = One()
    with one.listening():
        others_get_through(one.flow)
        await asyncio.sleep(10.0)
    assert not one.flow.gate.others_got_through("update", "other", -1.0, elsewhere=True)


@in_virtual_time
async def test_an_event_is_heeded_once_and_again_after_its_note_was_gone() -> None:
    one = One()
    with one.listening():
        for expected in (True, False):
            await one.queue.write_note(f"{REFUSAL}other", REFUSED)
            await asyncio.sleep(13.0)
            assert bool(one.flow.snapshot().closed_for_seconds) is expected
            await asyncio.sleep(30.0)
        await one.queue.write_note(f"{REFUSAL}other", None)  # it has gone
        await asyncio.sleep(13.0)
        await one.queue.write_note(f"{REFUSAL}other", REFUSED)
        await asyncio.sleep(13.0)
        assert one.flow.snapshot().closed_for_seconds


@in_virtual_time
async def test_notes_of_killed_workers_are_deleted_after_ten_minutes() -> None:
    one = One()
    for name in (f"{WORKER}gone", f"{EVENT}gone", f"{REFUSAL}gone"):
        await one.queue.write_note(name, "{}")
    with one.listening():
        await asyncio.sleep(590.0)
        assert sum("gone" in name for name in await one.queue.read_notes()) == 3
        await asyncio.sleep(20.0)
        assert set(await one.queue.read_notes()) == {f"{WORKER}one"}


@in_virtual_time
async def test_workers_are_counted_by_their_fresh_notes() -> None:
    one = One()
    await one.queue.write_note(f"{WORKER}other", "{}")
    with one.listening():
        await asyncio.sleep(2.0)
        assert one.sharing.workers == 2
        await asyncio.sleep(42.0)
        assert one.sharing.workers == 1


DEEP = '{"x":' * 100_000


@in_virtual_time
async def test_deeply_nested_notes_are_ignored() -> None:
    one = One()
    for name in (LIMIT, f"{EVENT}other", f"{REFUSAL}other", f"{WORKER}other"):
        await one.queue.write_note(name, DEEP)
    await one.sharing.begin()
    with one.listening():
        await asyncio.sleep(15.0)
        assert one.sharing.workers == 2


@in_virtual_time
async def test_no_note_makes_a_worker_wait_for_longer_than_a_day() -> None:
    one = One()
    await one.queue.write_note(f"{REFUSAL}other", '{"kind":"paused","number":1,"delay_seconds":1e300}')
    with one.listening():
        await asyncio.sleep(15.0)
        assert 0.0 < one.flow.snapshot().closed_for_seconds <= 86_401.0


@in_virtual_time
async def test_a_success_dated_ahead_counts_as_now() -> None:
    one = One()
    with one.listening():
        await asyncio.sleep(60.0)
        since = now()
        state = asdict(one.flow.snapshot()) | {"got_through_seconds_ago": {"update": -1e300}}
        await one.queue.write_note(f"{WORKER}other", msgspec.json.encode(state).decode())
        await asyncio.sleep(15.0)
        assert one.flow.gate.others_got_through("update", "c", since, elsewhere=True)
        assert not one.flow.gate.others_got_through("update", "c", now() + 1.0, elsewhere=True)


@in_virtual_time
async def test_a_worker_that_ends_deletes_its_notes_and_leaves_the_common_limit() -> None:
    one = One()
    one.flow.begin_at(5.0)
    await one.queue.write_note(f"{WORKER}other", "{}")
    with one.listening():
        await asyncio.sleep(3.0)
    await one.sharing.close()
    notes = await one.queue.read_notes()
    assert set(notes) == {LIMIT, f"{WORKER}other"}
    limit = limit_in(notes)
    assert limit is not None
    assert limit.per_second == pytest.approx(2 * (one.flow.snapshot().rate_limit_per_second or 0.0))


@in_virtual_time
async def test_a_worker_begins_at_its_part_of_the_limit_found_last() -> None:
    one = One()
    await one.queue.write_note(LIMIT, '{"per_second": 12.0, "age_seconds": 0.0}')
    for name in ("a", "b"):
        await one.queue.write_note(f"{WORKER}{name}", "{}")
    await one.sharing.begin()
    assert one.flow.snapshot().rate_limit_per_second == pytest.approx(4.0)


@in_virtual_time
async def test_a_stored_limit_keeps_the_age_of_its_finding() -> None:
    one = One()
    await one.queue.write_note(LIMIT, '{"per_second": 12.0, "age_seconds": 86400.0}')
    await asyncio.sleep(3_600.0)
    await one.sharing.begin()
    with one.listening():
        await asyncio.sleep(30.0)
        limit = limit_in(await one.queue.read_notes())
    assert limit is not None
    assert limit.per_second == pytest.approx(12.0)
    assert limit.age_seconds == pytest.approx(86_400.0 + 3_600.0 + 30.0, abs=3.0)


@in_virtual_time
async def test_a_limit_note_of_another_release_is_ignored() -> None:
    one = One()
    await one.queue.write_note(LIMIT, "12.0")
    await one.sharing.begin()
    assert one.flow.snapshot().rate_limit_per_second is None
