"""The file's content, and work in several transactions."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from tests.queue.helpers import bury, change, claim, died, finished, letters, pending_labels
from worker.changes import MetadataChange
from worker.queue import DeadSelection, Death, PendingSelection, Revived, Sample, Settlement
from worker.queue.base import Part, Stretch
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite import letters as letters_of_sqlite
from worker.queue.sqlite.clock import Clocks
from worker.queue.sqlite.writer import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[SqliteQueue]:
    async with await SqliteQueue.open(f"sqlite:///{path}") as queue:
        yield queue


@pytest.fixture
def writer(queue: SqliteQueue) -> Writer:
    return queue._writer


class _WithoutTemporaryFiles(apsw.VFS):
    """The default file system, without a place for temporary files."""

    def __init__(self) -> None:
        self._default = apsw.vfs_names()[0]
        super().__init__("without-temporary-files", self._default, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        if name is None:
            raise apsw.CantOpenError
        return apsw.VFSFile(self._default, name, flags)


@pytest.fixture
def no_temporary_files() -> Iterator[None]:
    files = _WithoutTemporaryFiles()
    yield
    files.unregister()


@pytest.mark.usefixtures("no_temporary_files")
async def test_no_call_needs_a_temporary_file(path: Path) -> None:
    large = {f"key-{number:02d}": "v" * 512 for number in range(16)}
    given = [MetadataChange(f"c-{number * 7919 % 3_000}", large, change_id=f"line-{number}") for number in range(3_000)]
    async with await SqliteQueue.open(f"sqlite:///{path}") as queue:
        await queue.put(given, batch="large")
        await queue.put(given, batch="again")
        while claims := await claim(queue, 1_000):
            await queue.settle([died(each) for each in claims], keep_seconds=60, remember=True)
        assert (await queue.retry_dead(DeadSelection())).retried == 3_000
        assert (await queue.withdraw(PendingSelection(batch="large"))).withdrawn == 3_000
        await queue.put(change(f"c-{number}") for number in range(3_000))
        while claims := await claim(queue, 1_000):
            await queue.settle([died(each) for each in claims], remember=True)
        assert await queue.purge_dead(DeadSelection()) == 3_000
        await queue.forget(0.0, most=10_000)
        assert (await queue.status()).pending == 0


async def test_a_put_takes_no_more_memory_for_more_changes(queue: SqliteQueue) -> None:
    backlog = [change(f"c-{number:0254d}") for number in range(30_000)]
    await queue.put(backlog)
    peaks = []
    for changes in (backlog[::30], backlog[::3]):
        apsw.memory_high_water(reset=True)
        before = apsw.memory_used()
        await queue.put(changes)
        peaks.append(apsw.memory_high_water() - before)

    assert peaks[1] < 1.5 * peaks[0], peaks


async def test_a_long_put_is_one_transaction(queue: SqliteQueue, writer: Writer) -> None:
    before = writer.commits
    await queue.put([change(f"c-{i}") for i in range(12_000)])

    assert writer.commits == before + 1


@pytest.mark.parametrize(
    "selection",
    [
        DeadSelection(),
        DeadSelection(completion_id="c-1"),
        DeadSelection(reason="rejected"),
        DeadSelection(numbers=range(1_000)),
    ],
)
async def test_many_letters_are_retried_and_purged_in_several_transactions(
    queue: SqliteQueue, writer: Writer, monkeypatch: pytest.MonkeyPatch, selection: DeadSelection
) -> None:
    monkeypatch.setattr(letters_of_sqlite, "BULK", 10)
    monkeypatch.setattr(letters_of_sqlite, "PAGE", 10)
    await bury(queue, *(change("c-1", str(i), change_id=f"line-{i}") for i in range(35)))
    await queue.put([change("c-2", change_id=f"line-{i}") for i in range(20)])
    assert len(await letters(queue, selection)) == 35
    before = writer.commits

    assert await queue.retry_dead(selection) == Revived(retried=15, kept=20)
    assert (await pending_labels(queue))["c-1"] == [str(i) for i in range(20, 35)]
    assert await queue.purge_dead(selection) == 20
    assert writer.commits - before > 6


async def test_letters_that_die_again_while_others_are_retried_stay_dead(
    queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters_of_sqlite, "BULK", 1)
    await bury(queue, change("c-1"), change("c-2"), change("c-3"))
    retry_letters = queue._retry_letters

    async def with_a_quick_worker(stretch: Stretch) -> Part[Revived]:
        part = await retry_letters(stretch)
        await bury(queue)
        return part

    monkeypatch.setattr(queue, "_retry_letters", with_a_quick_worker)

    assert await queue.retry_dead(DeadSelection()) == Revived(retried=3, kept=0)
    assert (await queue.status()).dead == 3


async def test_history_is_kept_for_a_week(path: Path) -> None:
    now = 1_700_000_000.0
    async with await SqliteQueue.open(f"sqlite:///{path}", clocks=Clocks(lambda: now, lambda: now, "boot")) as queue:
        for days in (0, 6.9, 0.2):
            now += days * 24 * 3_600
            await queue.put([change("c-1"), change("c-2"), change("c-3")])
            first, second, third = await claim(queue)
            unchanged = Settlement(second, unchanged=[each.number for each in second.changes])
            dead = Settlement(third, dead=[Death(each.number, "rejected", 1) for each in third.changes])
            await queue.settle([finished(first), unchanged])
            await queue.settle([dead])

    connection = apsw.Connection(str(path))
    rows = connection.execute("SELECT applied, unchanged, dead FROM history").fetchall()
    connection.close()
    assert rows == [(1, 1, 1), (1, 1, 1)]


async def test_samples_are_kept_for_a_day(path: Path) -> None:
    now = 1_700_000_000.0
    async with await SqliteQueue.open(f"sqlite:///{path}", clocks=Clocks(lambda: now, lambda: now, "boot")) as queue:
        for hours in (0, 23, 2):
            now += hours * 3_600
            await queue.record_sample(
                Sample(pending=1, oldest_seconds=None, rate_per_second=0.0, limit_per_second=None)
            )

    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT count(*) FROM sample").get == 2
    connection.close()


async def test_what_is_committed_stays_in_the_log_until_there_is_enough_of_it(path: Path, queue: SqliteQueue) -> None:
    before = _content(path)
    for number in range(100):  # without this, SQLite would bring the log into the file on the way
        await queue.put([change(f"c-{number}-{each}") for each in range(50)])

    assert _content(path) == before


def _content(path: Path) -> bytes:
    return path.read_bytes()
