"""The writer's thread: shared commits, callers who leave, stores that are busy, full or too slow."""

import asyncio
import resource
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.queue.helpers import LEASE_SECONDS, change, claim, claim_one, finished, labels, pending_labels
from worker.changes import MetadataChange
from worker.queue import QueueUnavailable, QueueUnusable
from worker.queue.blocking import open_queue_sync
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite.writer import Writer, _Call, _nothing

BULKY = [MetadataChange(f"c-{i}", {"label": "x" * 500}) for i in range(2_000)]

FAR_AHEAD = 10**16  # a lease's number, in a few hundred years


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


class Gate:
    """Something for the thread to wait at."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _: apsw.Connection) -> None:
        self.reached.set()
        assert self.opened.wait(60)


@asynccontextmanager
async def busy(writer: Writer) -> AsyncIterator[None]:
    """Keep the thread from its work as long as this lasts."""
    gate = Gate()
    occupied = asyncio.create_task(writer.read(gate))
    await asyncio.to_thread(gate.reached.wait, 60)
    try:
        yield
    finally:
        gate.opened.set()
        await occupied


async def started(*tasks: asyncio.Task[object]) -> None:
    """Let the tasks come as far as they get without an answer."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock, as another process would."""
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_calls_that_wait_together_are_committed_together(queue: SqliteQueue, writer: Writer) -> None:
    before = writer.commits
    async with busy(writer):
        puts = [asyncio.create_task(queue.put([change("c-1", str(i))])) for i in range(50)]
        await started(*puts)
    await asyncio.gather(*puts)

    assert writer.commits == before + 1
    assert await pending_labels(queue) == {"c-1": [str(i) for i in range(50)]}


async def test_calls_of_every_kind_share_a_commit(queue: SqliteQueue, writer: Writer) -> None:
    await queue.put([change("c-1"), change("c-2")])
    first, second = await claim(queue)
    before = writer.commits
    async with busy(writer):
        calls = asyncio.gather(
            queue.settle([finished(first)]),
            queue.extend([second], lease_seconds=LEASE_SECONDS),
            queue.put([change("c-3")]),
            claim(queue),
        )
        await asyncio.sleep(0)
    stale, lost, stored, [claimed] = await calls

    assert writer.commits == before + 1
    assert (stale, lost, stored.added, claimed.completion_id) == ([], [], 1, "c-3")


async def test_an_idle_thread_keeps_nothing_of_its_last_call(writer: Writer) -> None:
    gone = threading.Event()
    gate = Gate()
    gate.opened.set()
    weakref.finalize(gate, gone.set)
    await writer.write(gate)
    del gate
    assert await asyncio.to_thread(gone.wait, 30)


async def test_a_call_that_fails_spoils_no_other(queue: SqliteQueue, writer: Writer) -> None:
    def fail(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM change; DELETE FROM target")
        raise LookupError("of the caller's making")

    async with busy(writer):
        before = asyncio.create_task(queue.put([change("c-1")]))
        failing = asyncio.create_task(writer.write(fail))
        after = asyncio.create_task(queue.put([change("c-2")]))
        await started(before, failing, after)
    with pytest.raises(LookupError, match="of the caller's making"):
        await failing

    assert (await before).added == (await after).added == 1
    assert await pending_labels(queue) == {"c-1": ["x"], "c-2": ["x"]}


async def test_a_caller_who_goes_before_its_call_began_has_stored_nothing(queue: SqliteQueue, writer: Writer) -> None:
    async with busy(writer):
        goes = asyncio.create_task(queue.put([change("c-1")]))
        stays = asyncio.create_task(queue.put([change("c-2")]))
        await started(goes, stays)
        goes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await goes
    await stays

    assert await pending_labels(queue) == {"c-2": ["x"]}


async def test_a_caller_who_goes_while_its_call_runs_has_stored_nothing(queue: SqliteQueue, writer: Writer) -> None:
    gate = Gate()

    def insert(connection: apsw.Connection) -> None:
        connection.execute("UPDATE counter SET value = ?", (FAR_AHEAD,))
        gate(connection)

    goes = asyncio.create_task(writer.write(insert))
    await asyncio.to_thread(gate.reached.wait, 60)
    stays = asyncio.create_task(queue.put([change("c-1")]))
    goes.cancel()
    with pytest.raises(asyncio.CancelledError):
        await goes
    gate.opened.set()
    await stays

    assert (await claim_one(queue)).lease < FAR_AHEAD


async def test_a_caller_who_goes_spoils_no_call_of_the_same_commit(queue: SqliteQueue, writer: Writer) -> None:
    gate = Gate()
    async with busy(writer):
        stays = asyncio.create_task(queue.put([change("c-1")]))
        goes = asyncio.create_task(writer.write(gate))
        await started(stays, goes)
    await asyncio.to_thread(gate.reached.wait, 60)
    goes.cancel()
    with pytest.raises(asyncio.CancelledError):
        await goes
    gate.opened.set()

    assert (await stays).added == 1
    assert await pending_labels(queue) == {"c-1": ["x"]}


async def _commits(writer: Writer) -> threading.Event:
    """Give an event that is set within the next commit, when it can no longer be undone."""
    committed = threading.Event()

    def hook(*_: object) -> int:
        committed.set()
        return apsw.SQLITE_OK

    await writer.read(lambda connection: connection.set_wal_hook(hook))
    return committed


def _wait_until_delivered(writer: Writer, committed: threading.Event) -> None:
    """Hold up the event loop until the thread has sent it the answer of the call that commits."""
    assert committed.wait(60)
    delivered = threading.Event()
    writer._inbox.put(_Call(lambda _: delivered.set(), asyncio.get_running_loop().create_future(), writes=False))
    assert delivered.wait(60)


async def test_a_claim_whose_caller_went_during_the_commit_is_given_back(queue: SqliteQueue, writer: Writer) -> None:
    await queue.put([change("c-1"), change("c-2")])
    committed = await _commits(writer)
    goes = asyncio.create_task(claim(queue))
    await started(goes)
    assert committed.wait(60)  # this holds up the event loop: the answer is not delivered yet
    goes.cancel()
    with pytest.raises(asyncio.CancelledError):
        await goes
    await writer.read(_nothing)  # by now the answer has been dropped

    assert len(await claim(queue)) == 2


async def test_a_claim_whose_caller_went_with_the_answer_on_its_way_is_given_back(
    queue: SqliteQueue, writer: Writer
) -> None:
    await queue.put([change("c-1")])
    committed = await _commits(writer)
    goes = asyncio.create_task(claim(queue))
    await started(goes)
    _wait_until_delivered(writer, committed)
    # Three steps of the loop, in this order: the answer is set, the task is cancelled, the task goes on.
    asyncio.get_running_loop().call_soon(goes.cancel)
    with pytest.raises(asyncio.CancelledError):
        await goes

    assert len(await claim(queue)) == 1


async def test_closing_releases_claims_without_an_owner(queue: SqliteQueue, path: Path) -> None:
    await queue.put([change("c-1")])
    committed = await _commits(queue._writer)
    gate = Gate()
    occupied = asyncio.create_task(queue._writer.read(gate))
    await asyncio.to_thread(gate.reached.wait, 60)
    goes = asyncio.create_task(claim(queue))
    closing = asyncio.create_task(queue.close())
    await started(goes, closing)
    gate.opened.set()
    assert committed.wait(60)  # this holds up the event loop
    goes.cancel()
    await asyncio.gather(occupied, closing)

    assert goes.cancelled()
    async with await SqliteQueue.open(f"sqlite:///{path}") as again:
        assert len(await claim(again)) == 1


async def test_a_write_lock_that_is_held_too_long_makes_the_queue_unavailable(
    queue: SqliteQueue, writer: Writer, path: Path
) -> None:
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    writer._busy_seconds = 0.02
    with locked(path):
        for call in (
            queue.put([change("c-2")]),
            claim(queue),
            queue.extend([claimed], lease_seconds=1),
            queue.settle([finished(claimed)]),
        ):
            with pytest.raises(QueueUnavailable, match=f"{path} cannot be used now: another process holds"):
                await call
        assert (await queue.status()).pending == 1  # readers are not held up

    assert await queue.settle([finished(claimed)]) == []


async def test_a_read_does_not_wait_for_a_write_that_waits_for_another_process(queue: SqliteQueue, path: Path) -> None:
    await queue.put([change("c-1")])
    with locked(path):
        puts = [asyncio.create_task(queue.put([change("c-1", str(i))])) for i in range(3)]
        await started(*puts)
        for _ in range(3):
            assert (await queue.status()).pending == 1
        await started(*puts)
        late = asyncio.create_task(queue.put([change("c-1", "late")]))
        assert await queue.next_due_seconds() is not None
        await started(*puts, late)
    await asyncio.gather(*puts, late)

    assert await pending_labels(queue) == {"c-1": ["x", "0", "1", "2", "late"]}


async def test_closing_while_another_process_holds_the_lock_finishes_what_waits(path: Path) -> None:
    queue = await SqliteQueue.open(f"sqlite:///{path}")
    with locked(path):
        put = asyncio.create_task(queue.put([change("c-1")]))
        await started(put)
        await queue.status()  # the put waits for the lock
        closing = asyncio.create_task(queue.close())
        await started(put, closing)
    await closing

    assert (await put).added == 1


async def test_a_write_lock_that_is_let_go_in_time_is_waited_for(queue: SqliteQueue, path: Path) -> None:
    with locked(path):
        put = asyncio.create_task(queue.put([change("c-1")]))
        await started(put)

    assert (await put).added == 1


async def test_a_call_that_takes_too_long_makes_the_queue_unavailable_and_is_undone(
    queue: SqliteQueue, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    def update(connection: apsw.Connection) -> None:
        connection.execute("UPDATE counter SET value = ?", (FAR_AHEAD,))
        gate(connection)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_timeout_seconds", 0.05)
        with pytest.raises(QueueUnavailable, match=r"queue\.db did not answer within 0\.05 seconds"):
            await writer.write(update)
        with pytest.raises(QueueUnavailable, match="did not answer"):
            await queue.put([change("c-1", "waited in vain")])
    gate.opened.set()
    await queue.put([change("c-1", "later")])
    claimed = await claim_one(queue)

    assert labels(claimed) == ["later"]
    assert claimed.lease < FAR_AHEAD


async def test_an_answer_that_comes_with_the_time_out_counts(
    queue: SqliteQueue, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = await _commits(writer)
    monkeypatch.setattr(writer, "_timeout_seconds", 0.05)
    put = asyncio.create_task(queue.put([change("c-1")]))
    await started(put)
    deadline = time.monotonic() + 0.05
    _wait_until_delivered(writer, committed)
    while time.monotonic() < deadline:  # the loop sees the answer and the end of the time at once
        pass

    assert (await put).added == 1


async def test_a_full_disk_stores_nothing_by_halves_and_is_got_over(queue: SqliteQueue, writer: Writer) -> None:
    await queue.put([change("c-1")])
    pages = await writer.read(lambda connection: connection.pragma("page_count"))
    await writer.read(lambda connection: connection.pragma("max_page_count", pages + 10))

    with pytest.raises(QueueUnavailable, match="the disk is full"):
        await queue.put(BULKY)
    assert (await queue.status()).pending == 1
    claimed = await claim_one(queue)
    assert await queue.settle([finished(claimed)]) == []

    await writer.read(lambda connection: connection.pragma("max_page_count", 1_000_000))
    assert (await queue.put(BULKY)).added == len(BULKY)


async def test_a_full_disk_spoils_no_small_call_of_the_same_commit(queue: SqliteQueue, writer: Writer) -> None:
    pages = await writer.read(lambda connection: connection.pragma("page_count"))
    await writer.read(lambda connection: connection.pragma("max_page_count", pages + 10))
    async with busy(writer):
        large = asyncio.create_task(queue.put(BULKY))
        small = asyncio.create_task(queue.put([change("c-1")]))
        await started(large, small)
    with pytest.raises(QueueUnavailable, match="the disk is full"):
        await large

    assert (await small).added == 1
    assert await pending_labels(queue) == {"c-1": ["x"]}


async def test_a_write_that_fails_stores_nothing_by_halves_and_is_got_over(queue: SqliteQueue, path: Path) -> None:
    await queue.put([change("c-1")])
    log = path.with_name("queue.db-wal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 100_000, limits[1]))
    try:
        with pytest.raises(QueueUnavailable, match=r"reading or writing failed \(SQLITE_IOERR"):
            await queue.put(BULKY)
        assert (await queue.status()).pending == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (await queue.put(BULKY)).added == len(BULKY)


async def test_errors_hold_no_metadata_values(queue: SqliteQueue, writer: Writer) -> None:
    await writer.read(lambda connection: connection.execute("DROP TABLE target").fetchall())
    with pytest.raises(QueueUnusable) as caught:
        await queue.put([change("c-1", "recognisable")])

    shown = "".join(traceback.format_exception_only(caught.value))
    assert "no such table" in shown
    assert "recognisable" not in shown + repr(caught.value.__context__)


async def test_a_closed_queue_says_so(queue: SqliteQueue, writer: Writer) -> None:
    await queue.close()
    await queue.close()

    with pytest.raises(RuntimeError, match="the queue is closed"):
        await queue.put([change("c-1")])
    assert not writer._thread.is_alive()


async def test_closing_finishes_what_waits(queue: SqliteQueue, writer: Writer, path: Path) -> None:
    async with busy(writer):
        put = asyncio.create_task(queue.put([change("c-1")]))
        closing = asyncio.create_task(queue.close())
        await started(put, closing)
    await closing

    assert (await put).added == 1
    async with await SqliteQueue.open(f"sqlite:///{path}") as again:
        assert await pending_labels(again) == {"c-1": ["x"]}


async def test_an_unclosed_queue_does_not_keep_the_process_alive(path: Path) -> None:
    script = (
        "import asyncio, sys\nfrom worker.queue.sqlite import SqliteQueue\nasyncio.run(SqliteQueue.open(sys.argv[1]))\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, f"sqlite:///{path}", cwd=Path(__file__).parents[2]
    )

    assert await child.wait() == 0


async def test_the_log_is_brought_into_the_file_and_a_reader_is_not_asked_to_go_at_every_commit(
    path: Path, queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queue.sqlite.writer._CHECKPOINT_PAGES", 200)

    async def log() -> tuple[int, int]:
        """How many pages are in it, and how many of them in the file as well."""
        return await queue._writer.read(lambda connection: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP))

    await queue._writer.read(lambda connection: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE))
    reader = apsw.Connection(str(path))
    reader.execute("BEGIN; SELECT * FROM note").fetchall()
    attempts = []
    while (await log())[0] < 1_000:
        await queue.put(BULKY[:200])
        attempts.append(queue._writer._checkpoint_at)
    assert (await log())[1] == 0
    assert len(set(attempts)) < len(attempts) / 2

    reader.close()
    for _ in range(20):
        await queue.put(BULKY[:200])
    pages, _ = await log()
    assert pages < 1_000


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")  # as `Thread.start` says it at a limit of processes


@pytest.mark.parametrize("open_it", [SqliteQueue.open, open_queue_sync])
async def test_a_queue_whose_thread_does_not_start_is_unavailable_until_it_does(
    path: Path, open_it: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened() -> Any:
        queue = open_it(f"sqlite:///{path}")
        return await queue if isawaitable(queue) else queue

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(QueueUnavailable, match=r"needs a thread .can't start new thread.: a limit of processes"):
            await opened()
    closing = (await opened()).close()
    if closing is not None:
        await closing
