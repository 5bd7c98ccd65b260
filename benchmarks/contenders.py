"""The loops that metasync is measured against, each as its users write it: `python -m benchmarks.contenders NAME`."""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

import aiohttp
import uvloop

CONCURRENCY = 64
METADATA = {"grade": "A", "reviewer": "ana"}


def completion_ids(count: int) -> Iterable[str]:
    """As many ids as are wanted, the same every time."""
    return (f"chatcmpl-{number:07d}" for number in range(count))


async def _in_parallel(update: Callable[[str], Awaitable[None]], ids: Iterable[str]) -> None:
    remaining = iter(ids)

    async def work() -> None:
        for completion_id in remaining:
            await update(completion_id)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def bare(base_url: str, count: int) -> None:
    """The aiohttp loop that everybody writes: a list in memory; nothing is kept, logged or retried."""
    headers = {"Authorization": "Bearer sk-bench"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def update(completion_id: str) -> None:
            url = f"{base_url}/chat/completions/{completion_id}"
            async with session.post(url, json={"metadata": METADATA}) as response:
                response.raise_for_status()
                await response.json()

        await _in_parallel(update, completion_ids(count))


async def official(base_url: str, count: int) -> None:
    """The official client, its default transport, in a gather loop."""
    from openai import AsyncOpenAI  # noqa: PLC0415 -- heavy, and only this contender's

    async with AsyncOpenAI(base_url=base_url, api_key="sk-bench") as client:

        async def update(completion_id: str) -> None:
            await client.chat.completions.update(completion_id, metadata=METADATA)

        await _in_parallel(update, completion_ids(count))


CONTENDERS = {"bare": bare, "official": official}


def main() -> None:
    """Run one contender and print what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contenders", description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("base_url")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    uvloop.run(_measure(CONTENDERS[arguments.name], arguments.base_url, arguments.count))


async def _measure(contender: Callable[[str, int], Awaitable[None]], base_url: str, count: int) -> None:
    await contender(base_url, CONCURRENCY)  # imports, connections and caches are not what is measured
    started, cpu_started = time.perf_counter(), time.process_time()
    await contender(base_url, count)
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
