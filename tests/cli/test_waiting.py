"""Waiting for a batch, and how it ends if the batch, the queue or its workers change meanwhile."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from itertools import count
from types import SimpleNamespace

import msgspec
import pytest

from config import sink
from tests.engine.wrapping import WrappedQueue
from tests.queue.helpers import change, claim, died, finished
from worker.cli import signals, waiting
from worker.cli.exits import Exit
from worker.cli.waiting import Waited, WaitEnding, wait_for, words_of
from worker.flow import Cause, Flow, GateState
from worker.queue import Batch, Note, PendingSelection, Settlement, Store, pause
from worker.queue.memory import MemoryQueue
from worker.queue.notes import WORKER

NAME = "labels"
Step = Callable[[Store], Awaitable[object]]


class Scripted(WrappedQueue):
    """Has something happen before each look."""

    def __init__(self, queue: Store, steps: list[Step]) -> None:
        super().__init__(queue)
        self.steps = steps
        self.looks = 0
        self.ages = 0  # by how many hundredths of a second all notes are older than they are

    async def read_notes(self) -> dict[str, Note]:
        notes = await super().read_notes()
        return {
            name: msgspec.structs.replace(note, age_seconds=note.age_seconds + self.ages / 100)
            for name, note in notes.items()
        }

    async def batches(self, name: str | None = None) -> list[Batch]:
        self.looks += 1
        if self.steps:
            await self.steps.pop(0)(self)
        return await super().batches(name)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.001)
    sink.flush()  # what tests before this one have said
    capfd.readouterr()


async def _nothing(_: Store) -> None:
    pass


async def _apply_one(queue: Store) -> None:
    await queue.settle([finished(claimed) for claimed in await claim(queue, 1)])


async def _apply_all(queue: Store) -> None:
    while claims := await claim(queue):
        await queue.settle([finished(claimed) for claimed in claims])


async def _bury_one(queue: Store) -> None:
    await queue.settle([died(claimed) for claimed in await claim(queue, 1)])


async def _withdraw(queue: Store) -> None:
    await queue.withdraw(PendingSelection(batch=NAME))


async def _pause(queue: Store) -> None:
    await pause(queue, "ana@host", "deploy")


async def _wait(*steps: Step, count: int = 3, seconds: float | None = None) -> tuple[Waited, Scripted]:
    queue = MemoryQueue()
    await queue.put([change(f"c-{number}") for number in range(count)], batch=NAME)
    scripted = Scripted(queue, list(steps))
    async with asyncio.timeout(60):
        return await wait_for(scripted, NAME, seconds), scripted


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_it_ends_with_the_last_change_and_not_before(count: int) -> None:
    waited, queue = await _wait(*[_apply_one] * count, count=count)
    assert (waited.ending, waited.exit_code, queue.looks) == (WaitEnding.DONE, 0, count)
    assert waited.batch is not None
    assert (waited.batch.applied, waited.batch.pending) == (count, 0)
    assert words_of(waited, NAME) == f"batch {NAME}: {count} applied\ndone"


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_dead_letters_make_it_3(count: int) -> None:
    waited, _ = await _wait(_bury_one, _apply_all, count=count)
    assert (waited.ending, waited.exit_code) == (WaitEnding.DONE, Exit.NOT_ALL)
    assert waited.batch is not None
    assert (waited.batch.dead, waited.batch.applied) == (1, count - 1)
    assert f"`metasync batch show {NAME}` shows the dead letters" in words_of(waited, NAME)


async def test_a_batch_that_is_withdrawn_meanwhile_is_done_but_not_as_was_asked() -> None:
    waited, _ = await _wait(_apply_one, _withdraw)
    assert (waited.ending, waited.exit_code) == (WaitEnding.DONE, Exit.NOT_ALL)
    assert words_of(waited, NAME) == f"batch {NAME}: 1 applied, 2 withdrawn\ndone"


async def _let_go(queue: Store) -> None:
    await queue.forget(-1.0, most=10)
    assert await queue.batches() == []


@pytest.mark.parametrize(
    ("last", "code", "words"),
    [
        (_apply_one, 0, "done"),
        # `batch show` knows it no more
        (_bury_one, 3, f"done; `metasync dead list --batch {NAME}` shows the dead letters"),
    ],
)
async def test_a_batch_that_is_let_go_of_meanwhile_was_done(last: Step, code: int, words: str) -> None:
    async def end_and_let_go(queue: Store) -> None:
        await last(queue)
        await _let_go(queue)

    waited, _ = await _wait(end_and_let_go, count=1)
    assert (waited.ending, waited.exit_code, waited.batch) == (WaitEnding.DONE, code, None)
    assert words_of(waited, NAME) == words


async def test_what_was_seen_to_be_withdrawn_counts_though_the_batch_is_let_go_of() -> None:
    async def withdraw_one(queue: Store) -> None:
        await queue.withdraw(PendingSelection(completion_id="c-0"))

    async def apply_and_let_go(queue: Store) -> None:
        await _apply_all(queue)
        await _let_go(queue)

    waited, _ = await _wait(withdraw_one, apply_and_let_go)
    assert (waited.ending, waited.exit_code, waited.batch) == (WaitEnding.DONE, Exit.NOT_ALL, None)


async def test_a_pause_ends_it_once_nothing_is_in_flight() -> None:
    held: list[Settlement] = []

    async def hold_and_pause(queue: Store) -> None:
        held.extend(finished(claimed) for claimed in await claim(queue, 1))
        await _pause(queue)

    async def finish(queue: Store) -> None:
        await queue.settle(held)

    waited, queue = await _wait(hold_and_pause, _nothing, _nothing, finish)
    assert (waited.ending, waited.exit_code, queue.looks) == (WaitEnding.PAUSED, Exit.RUN_AGAIN, 4)
    assert waited.paused is not None
    assert (waited.paused.by, waited.paused.reason) == ("ana@host", "deploy")
    words = words_of(waited, NAME)
    assert words.startswith(f"batch {NAME}: 1 applied, 2 pending\nnot finished (paused by ana@host since ")
    assert words.endswith(f"`metasync resume`, then `metasync batch wait {NAME}` continues")


async def test_what_is_done_is_done_though_the_queue_is_paused() -> None:
    async def apply_and_pause(queue: Store) -> None:
        await _apply_all(queue)
        await _pause(queue)

    waited, _ = await _wait(apply_and_pause)
    assert (waited.ending, waited.exit_code) == (WaitEnding.DONE, 0)


async def test_with_a_time_out_a_pause_is_waited_through() -> None:
    waited, queue = await _wait(_pause, *[_nothing] * 5, _apply_all, seconds=3_600.0)
    assert (waited.ending, queue.looks) == (WaitEnding.DONE, 7)
    waited, _ = await _wait(_pause, seconds=0.05)
    assert (waited.ending, waited.exit_code) == (WaitEnding.TIMEOUT, Exit.RUN_AGAIN)
    assert "not finished (timeout: paused by ana@host since " in words_of(waited, NAME)


async def test_a_pause_is_said_once_though_its_age_is_never_read_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    async def grow_older(queue: Store) -> None:
        assert isinstance(queue, Scripted)
        queue.ages += 1

    async def say_something_else(queue: Store) -> None:
        await pause(queue, "ana@host", "deploy, until noon")

    waited, _ = await _wait(
        _pause, *[grow_older] * 5, say_something_else, *[grow_older] * 5, _apply_all, seconds=3_600.0
    )
    assert waited.ending is WaitEnding.DONE
    sink.flush()
    said = [line for line in capfd.readouterr().err.splitlines() if "paused by" in line]
    assert [line.rpartition(": ")[2] for line in said] == ["deploy", "deploy, until noon"]


async def test_a_time_out_of_nothing_looks_once() -> None:
    waited, queue = await _wait(seconds=0.0)
    assert (waited.ending, waited.exit_code, queue.looks) == (WaitEnding.TIMEOUT, Exit.RUN_AGAIN, 1)
    waited, queue = await _wait(_apply_all, seconds=0.0)
    assert (waited.ending, waited.exit_code, queue.looks) == (WaitEnding.DONE, 0, 1)


def _worker(name: str, reason: str | None) -> Step:
    async def note(queue: Store) -> None:
        state = asdict(Flow(max_concurrency=1, patience_seconds=5.0, clock=float).snapshot())
        if reason is not None:
            state |= {"gate": GateState.HALTED, "cause": asdict(Cause(reason, "its own\nwords"))}
        await queue.write_note(f"{WORKER}{name}", json.dumps(state))

    return note


@pytest.mark.parametrize(
    ("steps", "ending", "code", "error"),
    [
        ([], "timeout", 75, "no worker is running"),
        ([_worker("a", "unauthorized")], "halted", 77, "halted: unauthorized: its own\nwords"),
        ([_worker("a", "outage")], "timeout", 75, "halted: outage: its own\nwords"),
        ([_worker("a", "unauthorized"), _worker("b", None)], "timeout", 75, None),
        ([_worker("a", "unauthorized"), _worker("b", "outage")], "halted", 77, "halted: unauthorized: its own\nwords"),
    ],
)
async def test_what_stands_in_the_way_at_the_end_of_the_time_is_said(
    steps: list[Step], ending: str, code: int, error: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    async def all_of(queue: Store) -> None:
        for step in steps:
            await step(queue)

    waited, _ = await _wait(all_of, seconds=0.05)
    assert (waited.ending, waited.exit_code, waited.error) == (ending, code, error)
    assert words_of(waited, NAME).count("halted") == (error or "").count("halted")  # a halt names itself
    assert "\n" not in words_of(waited, NAME).partition("\n")[2]  # foreign words stay on their line
    sink.flush()
    waits = [line for line in capfd.readouterr().err.splitlines() if line.startswith("the batch waits: ")]
    assert len(waits) == (error is not None)  # however often it was looked


async def test_a_store_that_comes_back_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    async def go(queue: Store) -> None:
        assert isinstance(queue, WrappedQueue)
        queue.unavailable = {"batches", "read_notes"}

    async def come_back(queue: Store) -> None:
        assert isinstance(queue, WrappedQueue)
        queue.unavailable = set()
        await _apply_all(queue)

    waited, queue = await _wait(go, _nothing, _nothing, come_back)
    assert (waited.ending, waited.exit_code, queue.looks) == (WaitEnding.DONE, 0, 4)
    sink.flush()
    said = capfd.readouterr().err
    assert said.count("still waiting") == said.count("the queue's store is available again") == 1


@pytest.mark.parametrize("seconds", [None, 50.0])
async def test_a_store_that_stays_away_ends_it(seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=partial(next, count())))  # a second each time
    monkeypatch.setattr(waiting, "_AWAY_SECONDS", 50.0 if seconds is None else 3_600.0)

    async def go(queue: Store) -> None:
        assert isinstance(queue, WrappedQueue)
        queue.unavailable = {"batches"}

    waited, queue = await _wait(_nothing, go, seconds=seconds)
    assert queue.looks > 10
    assert (waited.ending, waited.exit_code) == (WaitEnding.STORE_AWAY, Exit.RUN_AGAIN)
    assert waited.error is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_the_way_on_is_said(number: signal.Signals) -> None:
    async def interrupt(_: Store) -> None:
        signals.tell(number)

    waited, queue = await _wait(_apply_one, interrupt)
    assert (waited.ending, waited.exit_code, queue.looks) == (WaitEnding.INTERRUPTED, Exit.RUN_AGAIN, 2)
    words = words_of(waited, NAME)
    assert words.endswith(f"the changes stay in the queue: `metasync batch wait {NAME}` continues")


async def test_a_signal_that_came_before_the_wait_ends_it_at_once() -> None:
    stop = asyncio.Event()
    stop.set()
    queue = MemoryQueue()
    await queue.put([change("c")], batch=NAME)
    async with asyncio.timeout(60):
        waited = await wait_for(queue, NAME, None, stop)
    assert (waited.ending, waited.exit_code) == (WaitEnding.INTERRUPTED, Exit.RUN_AGAIN)


async def test_a_batch_that_is_not_there_has_nothing_to_be_waited_for() -> None:
    waited = await wait_for(MemoryQueue(), NAME, None)
    assert (waited.ending, waited.exit_code, waited.batch) == (WaitEnding.DONE, 0, None)


async def test_a_store_that_is_away_from_the_first_look_on_is_waited_for() -> None:
    async def come_back(queue: Store) -> None:
        assert isinstance(queue, WrappedQueue)
        queue.unavailable = set()
        await _apply_all(queue)

    queue = MemoryQueue()
    await queue.put([change("c")], batch=NAME)
    scripted = Scripted(queue, [_nothing, _nothing, come_back])
    scripted.unavailable = {"batches"}
    async with asyncio.timeout(60):
        waited = await wait_for(scripted, NAME, None)
        assert (waited.ending, waited.exit_code) == (WaitEnding.DONE, 0)
        scripted.unavailable = {"batches"}
        waited = await wait_for(scripted, NAME, 0.0)
    assert (waited.ending, waited.exit_code, waited.batch) == (WaitEnding.STORE_AWAY, Exit.RUN_AGAIN, None)


async def test_a_name_that_is_foreign_is_quoted_and_escaped() -> None:
    name = "a b;\x1b[2J\n$(x)"
    words = words_of(Waited(None, Exit.RUN_AGAIN, WaitEnding.TIMEOUT), name)
    assert r"`metasync batch wait 'a b;\x1b[2J\n$(x)'`" in words
    assert len(words.splitlines()) == 1
