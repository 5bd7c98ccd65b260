"""The queue for code without asyncio: in threads, in notebooks, in forked processes."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from metasync import DeadSelection, QueueMisnamed, QueueUnavailable, QueueUnusable, Stored, open_queue, open_queue_sync
from tests.queue.helpers import bury, change
from tests.queue.postgres_server import connected, is_waiting, new_database
from tests.queue.redis_server import a_place


def lines(count: int) -> Iterator[dict[str, Any]]:
    return ({"completion_id": f"c-{i}", "metadata": {"grade": "A"}, "change_id": f"line-{i}"} for i in range(count))


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/queue.db"


def test_it_puts_and_counts_and_says_what_it_is(tmp_path: Path) -> None:
    with open_queue_sync(url_of(tmp_path)) as queue:
        assert queue.put(lines(5_001)) == Stored(5_001, 0)
        assert queue.put(lines(2)) == Stored(0, 2, pending_in={None: 2})
        assert queue.put({"completion_id": "c-9", "metadata": {}, "change_id": "line-1"}) == Stored(0, 0, (0,))
        assert queue.status().pending == 5_001
        assert queue.warnings == ()
        assert repr(queue) == f"<SyncQueue <SqliteQueue {tmp_path}/queue.db [open]>>"
    queue.close()  # once more is nothing
    with pytest.raises(RuntimeError, match="the queue is closed"):
        queue.put(lines(1))


async def test_it_works_while_a_loop_runs_in_this_thread_on_every_server(tmp_path: Path) -> None:
    async with new_database() as postgres, a_place() as redis:
        for url in (url_of(tmp_path), postgres, redis.url):
            with open_queue_sync(url) as queue:
                assert queue.put(lines(3)) == Stored(3, 0)
            async with open_queue(url) as same:
                assert (await same.status()).pending == 3


async def test_dead_letters_are_read_retried_and_purged(tmp_path: Path) -> None:
    async with open_queue(url_of(tmp_path)) as worker:
        for first in range(0, 250, 50):
            await bury(worker, *[change(f"c-{i}") for i in range(first, first + 50)])
    with open_queue_sync(url_of(tmp_path)) as queue:
        letters = list(queue.dead_letters())
        assert [letter.completion_id for letter in letters] == [f"c-{i}" for i in range(250)]
        assert [letter.number for letter in queue.dead_letters(DeadSelection(completion_id="c-7"))] == [8]
        assert queue.retry_dead(DeadSelection(numbers=[1, 2])).retried == 2
        assert queue.purge_dead(DeadSelection()) == 248


def test_many_threads_share_one(tmp_path: Path) -> None:
    with open_queue_sync(url_of(tmp_path)) as queue, ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda i: queue.put([change(f"c-{i}")]), range(200)))
        assert stored == [Stored(1, 0)] * 200
        assert queue.status().pending == 200


def test_an_iterable_is_read_in_the_thread_that_puts(tmp_path: Path) -> None:
    threads = set()

    def watched() -> Iterator[dict[str, Any]]:
        for line in lines(10):
            threads.add(threading.current_thread())
            yield line

    with open_queue_sync(url_of(tmp_path)) as queue:
        queue.put(watched())
    assert threads == {threading.current_thread()}


def test_a_failed_open_reports_it_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(QueueMisnamed):
        open_queue_sync("mysql://")
    with pytest.raises(QueueUnusable):
        open_queue_sync(f"sqlite:///{tmp_path}/missing/queue.db")
    with pytest.raises(QueueUnavailable):
        open_queue_sync("redis://127.0.0.1:1", timeout_seconds=1)
    assert threading.active_count() == before


def test_a_forked_process_is_told_to_open_its_own(tmp_path: Path) -> None:
    program = """
import os, sys
from metasync import QueueUnusable, open_queue_sync
queue = open_queue_sync(sys.argv[1])
queue.put({"completion_id": "c-1", "metadata": {}})
child = os.fork()
if child == 0:
    try:
        queue.put({"completion_id": "c-2", "metadata": {}})
    except QueueUnusable as error:
        print(error, flush=True)
    queue.close()
    with open_queue_sync(sys.argv[1]) as own:
        own.put({"completion_id": "c-3", "metadata": {}})
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), queue.status().pending)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, url_of(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [
        "this queue was opened before the process was forked: open another one in each process",
        "7 2",
    ], done.stderr


@pytest.mark.parametrize("last_words", ["", "del queue"])
def test_an_unclosed_sync_queue_does_not_keep_the_process_alive(tmp_path: Path, last_words: str) -> None:
    program = f"""
import sys
from metasync import open_queue_sync
queue = open_queue_sync(sys.argv[1])
queue.put({{"completion_id": "c-1", "metadata": {{}}}})
{last_words}
"""
    command = [sys.executable, "-W", "error", "-c", program, url_of(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_queue_sync(url_of(tmp_path)) as queue:
        assert queue.status().pending == 1


async def test_a_put_that_waits_for_a_lock_is_ended_by_ctrl_c() -> None:
    program = """
import os, sys
from metasync import open_queue_sync
with open_queue_sync(sys.argv[1], timeout_seconds=60) as queue:
    print("open", flush=True)
    try:
        queue.put({"completion_id": "c-1", "metadata": {}})
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    async with new_database() as url, connected(url) as connection, connected(url) as watching:
        with open_queue_sync(url):
            pass
        await connection.execute("BEGIN; SELECT metasync_enqueue('c-1', '{}')")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        await is_waiting(watching, 1)
        process.send_signal(signal.SIGINT)
        assert await process.stdout.readline() == b"interrupted\n"
        assert await process.wait() == 0
        await connection.execute("COMMIT")
        assert await connection.fetchval("SELECT count(*) FROM metasync.change") == 1
