"""A queue of `open_queue` where it is not at home: on another event loop, in a thread or a forked process."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from metasync import Stored, open_queue
from tests.queue.helpers import change
from tests.queue.stores import STORES

pytestmark = pytest.mark.parametrize("kind", STORES)
NOT_HERE = "this queue belongs to the event loop that opened it: open another one in each"


async def test_another_event_loop_is_refused_before_anything_is_sent(tmp_path: Path, kind: str) -> None:
    async with STORES[kind](tmp_path) as url, open_queue(url) as queue:
        assert await queue.put(change("c-1")) == Stored(1, 0)
        for call in (lambda: queue.put(change("c-2")), queue.status, queue.close):
            with pytest.raises(RuntimeError, match=NOT_HERE):
                await asyncio.to_thread(asyncio.run, call())
        assert await queue.put(change("c-3")) == Stored(1, 0)
        assert (await queue.status()).pending == 2


async def test_a_forked_process_sends_nothing_on_the_connections_of_its_parent(tmp_path: Path, kind: str) -> None:
    program = """
import asyncio, os, sys
from metasync import open_queue

async def put(queue, completion_id):
    print(await queue.put({"completion_id": completion_id, "metadata": {}}), flush=True)

async def main():
    opening = open_queue(sys.argv[1])
    queue = await opening.__aenter__()
    await put(queue, "c-1")
    return opening, queue

with asyncio.Runner() as runner:
    opening, queue = runner.run(main())
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(put(queue, "c-2"))
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    runner.run(put(queue, "c-3"))
    print(runner.run(queue.status()).pending)
    runner.run(opening.__aexit__(None, None, None))
"""
    async with STORES[kind](tmp_path) as url:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program, url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    before, refused, after, pending = done.stdout.splitlines()
    assert before == after
    assert refused.startswith(NOT_HERE)
    assert pending == "2"
    assert done.stderr == ""
