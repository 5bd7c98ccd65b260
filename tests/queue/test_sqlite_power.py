"""Confirmed changes survive a loss of power, which takes unsynced writes from the disk."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from tests.queue.helpers import EVERY_LETTER, bury, change, claim, finished, pending_labels
from tests.queue.power import disk
from worker.queue import Store
from worker.queue.sqlite import SqliteQueue

SYNC_KIND = 0x0F  # of the flags that a sync is given; the others say what of the file


async def put(queue: Store) -> None:
    await queue.put([change("c-1", "new"), change("c-2", "new")])


async def settle(queue: Store) -> None:
    assert await queue.settle([finished(claimed) for claimed in await claim(queue)]) == []


async def extend(queue: Store) -> None:
    assert await queue.extend(await claim(queue), lease_seconds=3_600) == []


async def put_and_bury(queue: Store) -> None:
    await bury(queue, change("c-1"))


async def retry(queue: Store) -> None:
    await put_and_bury(queue)
    assert (await queue.retry_dead(EVERY_LETTER)).retried


async def purge(queue: Store) -> None:
    await put_and_bury(queue)
    assert await queue.purge_dead(EVERY_LETTER)


async def write_note(queue: Store) -> None:
    await queue.write_note("name", "text")


@pytest.mark.parametrize("confirmed", [put, settle, extend, put_and_bury, retry, purge, write_note])
async def test_what_was_confirmed_survives_a_loss_of_power(
    tmp_path: Path, confirmed: Callable[[Store], Awaitable[None]]
) -> None:
    with disk(tmp_path / "synced") as drive:
        async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db") as queue:
            await queue.put([change("c-0", "before")])
            await confirmed(queue)
            shutil.copytree(drive.copies, tmp_path / "afterwards")  # before anything is synced by closing
            expected = await contents(queue)

    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/afterwards/queue.db") as queue:
        assert await contents(queue) == expected


async def contents(queue: Store) -> tuple[object, ...]:
    """What there is to find, but for ages."""
    status = await queue.status()
    letters = [letter async for letter in queue.dead_letters(EVERY_LETTER)]
    done = [(minute.applied, minute.dead) for minute in await queue.history(5)]
    return status.pending, status.in_flight, letters, done, set(await queue.read_notes()), await pending_labels(queue)


async def test_every_sync_goes_through_to_the_platter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS an ordinary one does not."""
    monkeypatch.setattr("worker.queue.sqlite.writer._CHECKPOINT_PAGES", 1)
    with disk(tmp_path / "synced") as drive:
        async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db") as queue:
            drive.sync_flags.clear()
            await put(queue)
            await put(queue)
            await queue.status()  # by then, what was in the log is in the file

    assert len(drive.sync_flags) > 2
    assert {flags & SYNC_KIND for flags in drive.sync_flags} == {apsw.SQLITE_SYNC_FULL}
