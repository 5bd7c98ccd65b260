"""A worker that waits at a queue's file notices other processes' changes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from tests.e2e.processes import Command, write_changes
from tests.queue.helpers import bury, change
from worker.queue import DeadSelection
from worker.queue.sqlite import SqliteQueue

FOR_EVER = 3_600.0
LONGEST_SECONDS = 60.0  # what the test waits for something that comes at once, on a machine that is busy


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    queue = await SqliteQueue.open(f"sqlite:///{tmp_path}/metasync.db")
    yield queue
    await queue.close()


@pytest.fixture
async def other(queue: SqliteQueue) -> AsyncIterator[SqliteQueue]:
    other = await SqliteQueue.open(f"sqlite:///{queue._file.path}")
    yield other
    await other.close()


async def wait_in_vain_so_far(queue: SqliteQueue) -> asyncio.Task[bool]:
    queue._work.clear()
    waiting = asyncio.create_task(queue.wait_for_work(FOR_EVER))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    return waiting


async def heard(waiting: asyncio.Task[bool]) -> bool:
    async with asyncio.timeout(LONGEST_SECONDS):
        return await waiting


async def test_a_change_of_another_process_wakes_a_waiting_worker(queue: SqliteQueue, tmp_path: Path) -> None:
    waiting = await wait_in_vain_so_far(queue)
    path = write_changes(tmp_path / "changes.jsonl", [{"completion_id": "c-1", "metadata": {}}])
    done = await asyncio.to_thread(Command(tmp_path, {}).run, "enqueue", path)
    assert done.returncode == 0, done.stderr
    assert await heard(waiting)


async def test_each_of_many_puts_wakes_a_waiting_worker(queue: SqliteQueue, other: SqliteQueue) -> None:
    for number in range(50):
        waiting = await wait_in_vain_so_far(queue)
        await other.put([change(f"c-{number}")])
        assert await heard(waiting)


async def test_a_log_that_begins_anew_or_is_cut_hides_nothing(queue: SqliteQueue, other: SqliteQueue) -> None:
    await other.put([change(f"c-{number}") for number in range(1_000)])
    for mode in (apsw.SQLITE_CHECKPOINT_RESTART, apsw.SQLITE_CHECKPOINT_TRUNCATE):
        await queue._writer.read(lambda connection, mode=mode: connection.wal_checkpoint(mode=mode))  # type: ignore[misc]
        waiting = await wait_in_vain_so_far(queue)
        await other.put([change("c-new")])
        assert await heard(waiting)


async def test_letters_that_another_process_retries_wake_a_waiting_worker(
    queue: SqliteQueue, other: SqliteQueue
) -> None:
    await bury(queue, change("c-1"))
    waiting = await wait_in_vain_so_far(queue)
    assert (await other.retry_dead(DeadSelection())).retried == 1
    assert await heard(waiting)


async def test_nothing_is_heard_where_nothing_was_written(queue: SqliteQueue, other: SqliteQueue) -> None:
    await other.put([change("c-1")])
    queue._work.clear()
    assert await other.status() is not None
    assert not await queue.wait_for_work(0.05)
