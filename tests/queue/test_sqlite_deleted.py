"""Deleted data is erased from a SQLite queue's file and log."""

import asyncio
from contextlib import closing
from pathlib import Path

import apsw

from tests.queue.helpers import bury, change, claim, letters, numbers
from worker.changes import MetadataChange
from worker.queue import DeadSelection, PendingSelection, Settlement, Store, open_queue

SECRET = "planted-7f3a"
DAY = 86_400.0


def _planted(number: int) -> MetadataChange:
    """Some are so long that a page does not hold them, which SQLite keeps apart."""
    value = f"{SECRET}-{number:05}"
    pairs = {f"key-{index}": f"{value}-{'x' * 480}" for index in range(12)} if number % 5 == 0 else {"key": value}
    return MetadataChange(f"chatcmpl-{number:05}", pairs, "replace")


async def _planted_letters(queue: Store, count: int) -> None:
    """Letters whose changes were tried before: each trial rewrites the change's row."""
    for start in range(0, count, 50):
        await queue.put([_planted(number) for number in range(start, start + 50)])
        for _ in range(2):
            claims = await claim(queue)
            trials = [(each.changes[0].number, "t" * 40) for each in claims]
            await queue.settle(
                [Settlement(each, (), (), (), 0.0, trials=[noted]) for each, noted in zip(claims, trials, strict=True)]
            )
        await bury(queue)


def _traces(folder: Path) -> list[str]:
    """Where the planted values are in the files of the queue, after a checkpoint."""
    with closing(apsw.Connection(str(folder / "queue.db"))) as connection:
        assert connection.execute("SELECT count(*) FROM note").get is not None  # before, it knows of no log
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return _holding_it(folder)


def _holding_it(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if SECRET.encode() in path.read_bytes()]


async def test_values_of_purged_letters_are_gone_from_the_file(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        await _planted_letters(queue, 400)
        assert _traces(tmp_path) == ["queue.db"]
        assert await queue.purge_dead(DeadSelection()) == 400
        # Without a checkpoint by others: the purge has emptied the log.
        assert _holding_it(tmp_path) == []
        assert _traces(tmp_path) == []


async def test_values_of_letters_that_expire_or_were_sent_back_before_are_gone_too(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        await _planted_letters(queue, 100)
        assert (await queue.retry_dead(DeadSelection())).retried == 100
        await bury(queue)
        with closing(apsw.Connection(str(tmp_path / "queue.db"))) as connection:
            connection.execute("UPDATE dead_letter SET died_at = died_at - 86400.0 * 40")
        assert await queue.expire_dead(30 * DAY, most=1_000) == 100
        assert _traces(tmp_path) == []


async def test_values_that_were_applied_are_gone_once_the_queue_rests(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        confirmed = {f"key-{index}": f"{SECRET}-{'x' * 480}" for index in range(12)}
        for start in (0, 50):
            await queue.put([_planted(number) for number in range(start, start + 50)])
            claims = await claim(queue)
            settlements = [Settlement(each, applied=numbers(each), confirmed=confirmed) for each in claims]
            assert await queue.settle(settlements, keep_seconds=60.0) == []
        assert _traces(tmp_path) == ["queue.db"]
        await queue.forget_confirmed(60.0, most=100)
        assert _traces(tmp_path) == ["queue.db"]
        await queue.forget_confirmed(0.0, most=100)
        assert _holding_it(tmp_path) == []


async def test_withdrawn_values_are_gone_from_the_file(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        await queue.put([_planted(number) for number in range(100)], batch="b")
        assert _traces(tmp_path) == ["queue.db"]
        assert (await queue.withdraw(PendingSelection(batch="b"))).withdrawn == 100
        assert _holding_it(tmp_path) == []


async def test_a_purge_does_not_wait_for_who_reads_the_file_for_long(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        await bury(queue, change("c-1"))
        with closing(apsw.Connection(str(tmp_path / "queue.db"))) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM dead_letter").get == 1
            async with asyncio.timeout(60):
                assert await queue.purge_dead(DeadSelection()) == 1
            assert await letters(queue) == []
            reader.execute("COMMIT")


async def test_values_read_during_a_purge_leave_the_log_with_a_later_commit(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
        await _planted_letters(queue, 100)
        with closing(apsw.Connection(str(tmp_path / "queue.db"))) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM dead_letter").get == 100
            assert await queue.purge_dead(DeadSelection()) == 100
            await queue.write_note("a", "still read")
            assert _holding_it(tmp_path) != []
            reader.execute("COMMIT")
            async with asyncio.timeout(60):
                while _holding_it(tmp_path):
                    await queue.write_note("a", "b")
                    await asyncio.sleep(0.05)
