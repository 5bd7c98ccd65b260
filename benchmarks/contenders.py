"""The loops that metasync is compared with, each as its users write it: `python -m benchmarks.contenders NAME`."""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import aiohttp
import uvloop

from benchmarks.processes import peak_mb

CONCURRENCY = 64
METADATA = {"grade": "A", "reviewer": "ana"}
MERGED = {"grade": "B"}


def completion_ids(count: int) -> Iterable[str]:
    """So many ids, the same every time."""
    return (f"chatcmpl-{number:07d}" for number in range(count))


async def _in_parallel(update: Callable[[str], Awaitable[None]], ids: Iterable[str]) -> None:
    remaining = iter(ids)

    async def work() -> None:
        for completion_id in remaining:
            await update(completion_id)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def bare(base_url: str, count: int) -> None:
    """The usual aiohttp loop: a list in memory; nothing is kept, logged or retried."""
    headers = {"Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def update(completion_id: str) -> None:
            url = f"{base_url}/chat/completions/{completion_id}"
            async with session.post(url, json={"metadata": METADATA}) as response:
                response.raise_for_status()
                await response.json()

        await _in_parallel(update, completion_ids(count))


async def prepared(base_url: str, count: int) -> None:
    """The same with bodies encoded in advance, and answers that are read but not parsed."""
    headers = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    body = json.dumps({"metadata": METADATA}).encode()
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def update(completion_id: str) -> None:
            async with session.post(f"{base_url}/chat/completions/{completion_id}", data=body) as response:
                response.raise_for_status()
                await response.read()

        await _in_parallel(update, completion_ids(count))


async def merging(base_url: str, count: int) -> None:
    """The usual loop to merge: GET, add to the metadata, POST."""
    headers = {"Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def update(completion_id: str) -> None:
            url = f"{base_url}/chat/completions/{completion_id}"
            async with session.get(url) as response:
                response.raise_for_status()
                stored = (await response.json())["metadata"]
            async with session.post(url, json={"metadata": stored | MERGED}) as response:
                response.raise_for_status()
                await response.json()

        await _in_parallel(update, completion_ids(count))


async def listing(base_url: str, count: int) -> None:
    """The usual aiohttp loop to export: page after page, with a line for each completion into a file."""
    headers = {"Authorization": "Bearer sk-bench"}
    written, after = 0, ""
    async with aiohttp.ClientSession(headers=headers) as session:
        with tempfile.TemporaryFile("w") as file:
            while written < count:
                url = f"{base_url}/chat/completions?order=asc&limit=100{after}"
                async with session.get(url) as response:
                    response.raise_for_status()
                    page = await response.json()
                for each in page["data"]:
                    file.write(json.dumps({"completion_id": each["id"], "metadata": each["metadata"]}) + "\n")
                written, after = written + len(page["data"]), f"&after={page['last_id']}"


async def reading(base_url: str, count: int) -> None:
    """The usual aiohttp loop to read completions and to compare them with the wanted metadata."""
    headers = {"Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    wanted = dict.fromkeys(completion_ids(count), METADATA)
    differ = 0
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def read(completion_id: str) -> None:
            nonlocal differ
            async with session.get(f"{base_url}/chat/completions/{completion_id}") as response:
                response.raise_for_status()
                stored = (await response.json())["metadata"]
            differ += stored != wanted[completion_id]

        await _in_parallel(read, wanted)


async def task_queue(base_url: str, _: int, *, database: str) -> None:
    """Run pgqueuer over jobs that `enqueue_jobs` has stored; each job makes the usual POST."""
    import asyncpg  # noqa: PLC0415 -- only this contender's
    from pgqueuer import PgQueuer  # noqa: PLC0415 -- likewise
    from pgqueuer.db import AsyncpgPoolDriver  # noqa: PLC0415 -- likewise
    from pgqueuer.models import Job  # noqa: PLC0415 -- likewise
    from pgqueuer.types import QueueExecutionMode  # noqa: PLC0415 -- likewise

    headers = {"Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with (
        asyncpg.create_pool(database) as pool,
        aiohttp.ClientSession(headers=headers, connector=connector) as session,
    ):
        jobs = PgQueuer(AsyncpgPoolDriver(pool))

        @jobs.entrypoint("update")
        async def update(job: Job) -> None:
            completion_id = (job.payload or b"").decode()
            url = f"{base_url}/chat/completions/{completion_id}"
            async with session.post(url, json={"metadata": METADATA}) as response:
                response.raise_for_status()
                await response.json()

        await jobs.run(batch_size=CONCURRENCY, mode=QueueExecutionMode.drain, max_concurrent_tasks=2 * CONCURRENCY)


async def enqueue_jobs(count: int, *, database: str) -> None:
    """Store pgqueuer's jobs, which is not measured."""
    import asyncpg  # noqa: PLC0415 -- only this contender's
    from pgqueuer.db import AsyncpgDriver  # noqa: PLC0415 -- likewise
    from pgqueuer.queries import Queries  # noqa: PLC0415 -- likewise

    connection = await asyncpg.connect(database)
    try:
        queries = Queries(AsyncpgDriver(connection))
        if not await connection.fetchval("SELECT to_regclass('pgqueuer') IS NOT NULL"):
            await queries.install()
        ids = [completion_id.encode() for completion_id in completion_ids(count)]
        await queries.enqueue(["update"] * count, [*ids], [0] * count)
    finally:
        await connection.close()


async def official(base_url: str, count: int) -> None:
    """The official client, its default transport, in a gather loop."""
    from openai import AsyncOpenAI  # noqa: PLC0415 -- heavy, and only this contender's

    async with AsyncOpenAI(base_url=base_url, api_key="sk-bench") as client:

        async def update(completion_id: str) -> None:
            await client.chat.completions.update(completion_id, metadata=METADATA)

        await _in_parallel(update, completion_ids(count))


CONTENDERS: dict[str, Callable[..., Awaitable[None]]] = {
    "bare": bare,
    "prepared": prepared,
    "merging": merging,
    "listing": listing,
    "reading": reading,
    "official": official,
    "task_queue": task_queue,
}

PREPARATIONS: dict[str, Callable[..., Awaitable[None]]] = {"task_queue": enqueue_jobs}


async def _nothing(count: int) -> None:
    """Prepare nothing."""


def main() -> None:
    """Run one contender and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contenders", description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("base_url")
    parser.add_argument("count", type=int)
    parser.add_argument("options", type=json.loads, nargs="?", default={}, help="further arguments, as JSON")
    arguments = parser.parse_args()
    uvloop.run(_measure(partial(CONTENDERS[arguments.name], **arguments.options), arguments))


async def _measure(contender: Callable[[str, int], Awaitable[None]], arguments: argparse.Namespace) -> None:
    prepare = PREPARATIONS.get(arguments.name, _nothing)
    await prepare(CONCURRENCY, **arguments.options)
    await contender(arguments.base_url, CONCURRENCY)  # imports, connections and caches are not measured
    await prepare(arguments.count, **arguments.options)
    started, cpu_started = time.perf_counter(), time.process_time()
    await contender(arguments.base_url, arguments.count)
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "peak_rss_mb": peak_mb(),
    }
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
