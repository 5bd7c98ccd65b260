"""The loops that flow control is compared with, each as its users write it, as a process that SIGTERM ends."""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import uvloop

from benchmarks.flow_adaptive import AdaptiveRate, RetryQuota, turn

KEY = "sk-bench"
METADATA = {"grade": "A", "reviewer": "ana"}
CONCURRENCY = 20

_ADAPTIVE_ATTEMPTS = 3
_ADAPTIVE_LONGEST_SECONDS = 20.0


@dataclass(slots=True)
class Tally:
    """The results of the rows. A row that is given up is left to the user."""

    updated: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """The job of a peer.

    Args:
        ids: of the completions to update; all tasks of the peer take from these.
        requests_per_minute: the service's true limit, from which peers derive their guesses.
    """

    base_url: str
    ids: Iterator[str]
    requests_per_minute: float
    tally: Tally


Peer = Callable[[Job], Coroutine[Any, Any, None]]


def completion_ids(count: int) -> Iterator[str]:
    """The ids that the simulator stores from the start."""
    return (f"chatcmpl-{number:06d}" for number in range(1, count + 1))


async def _in_parallel(job: Job, update: Callable[[str], Awaitable[object]], failure: type[Exception]) -> None:
    async def work() -> None:
        for completion_id in job.ids:
            try:
                await update(completion_id)
                job.tally.updated += 1
            except failure:
                job.tally.given_up += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


async def official(job: Job) -> None:
    """The official client with its own retries, 20 at once."""
    from openai import AsyncOpenAI, OpenAIError  # noqa: PLC0415 -- heavy, and not every peer's

    async with AsyncOpenAI(base_url=job.base_url, api_key=KEY) as client:

        async def update(completion_id: str) -> None:
            await client.chat.completions.update(completion_id, metadata=METADATA)

        await _in_parallel(job, update, OpenAIError)


async def semaphore_and_tenacity(job: Job) -> None:
    """20 at once, each with tenacity's random exponential wait of 1 to 60 s, six attempts.

    These are the figures of OpenAI's guide to rate limits. The client's own retries are off.
    """
    from openai import AsyncOpenAI, OpenAIError  # noqa: PLC0415 -- heavy, and not every peer's
    from tenacity import retry, stop_after_attempt, wait_random_exponential  # noqa: PLC0415 -- likewise

    async with AsyncOpenAI(base_url=job.base_url, api_key=KEY, max_retries=0) as client:

        @retry(wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(6), reraise=True)
        async def update(completion_id: str) -> None:
            await client.chat.completions.update(completion_id, metadata=METADATA)

        await _in_parallel(job, update, OpenAIError)


class CookbookLoop:
    """One loop starts requests as a configured rate allows, in the shape of OpenAI's script for parallel requests.

    A failed row is tried up to five times, before any new one; a 429 makes the loop pause for 15 s. In the script's
    favour its bucket, which holds a minute's worth, is empty at the start instead of full.
    """

    _ATTEMPTS = 5
    _PAUSE_SECONDS = 15.0
    _SHORTEST_WAIT_SECONDS = 0.001

    def __init__(self, job: Job, requests_per_minute: float) -> None:
        self._job = job
        self._per_minute = requests_per_minute
        self._capacity = 0.0
        self._filled_at = time.monotonic()
        self._paused_until = 0.0
        self._again: deque[tuple[str, int]] = deque()

    async def run(self) -> None:
        """Until every row is updated or given up."""
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while row := self._next_row():
                async with asyncio.TaskGroup() as calls:
                    while row:
                        await self._turn()
                        calls.create_task(self._call(session, *row))
                        row = self._next_row()

    def _next_row(self) -> tuple[str, int] | None:
        """An id, and how many attempts it has left."""
        if self._again:
            return self._again.popleft()
        completion_id = next(self._job.ids, None)
        return None if completion_id is None else (completion_id, self._ATTEMPTS)

    async def _turn(self) -> None:
        while True:
            now = time.monotonic()
            self._capacity += (now - self._filled_at) * self._per_minute / 60
            self._capacity = min(self._capacity, self._per_minute)
            self._filled_at = now
            wait_seconds = max(self._paused_until - now, (1 - self._capacity) * 60 / self._per_minute)
            if wait_seconds <= 0:
                self._capacity -= 1
                await asyncio.sleep(self._SHORTEST_WAIT_SECONDS)  # let the requests under way end
                return
            await asyncio.sleep(max(wait_seconds, self._SHORTEST_WAIT_SECONDS))

    async def _call(self, session: aiohttp.ClientSession, completion_id: str, attempts_left: int) -> None:
        url = f"{self._job.base_url}/chat/completions/{completion_id}"
        try:
            async with session.post(url, json={"metadata": METADATA}) as response:
                await response.read()
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                    self._paused_until = time.monotonic() + self._PAUSE_SECONDS
                response.raise_for_status()
            self._job.tally.updated += 1
        except aiohttp.ClientError:
            if attempts_left > 1:
                self._again.append((completion_id, attempts_left - 1))
            else:
                self._job.tally.given_up += 1


async def cookbook_at_half(job: Job) -> None:
    """The cookbook's loop, its user careful."""
    await CookbookLoop(job, job.requests_per_minute / 2).run()


async def cookbook_at_twice(job: Job) -> None:
    """The cookbook's loop, its user wrong."""
    await CookbookLoop(job, job.requests_per_minute * 2).run()


async def adaptive(job: Job) -> None:
    """AWS's adaptive retry mode, 20 at once: three attempts, up to a random 1, 2, ... 20 s between them."""
    rate, quota, dice = AdaptiveRate(time.monotonic()), RetryQuota(), random.Random()  # noqa: S311 -- jitter, no secret
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def update(completion_id: str) -> None:
            url = f"{job.base_url}/chat/completions/{completion_id}"
            for attempt in range(_ADAPTIVE_ATTEMPTS):
                await turn(rate)
                async with session.post(url, json={"metadata": METADATA}) as response:
                    await response.read()
                rate.answered(time.monotonic(), throttled=response.status == HTTPStatus.TOO_MANY_REQUESTS)
                if response.ok:
                    quota.succeeded(retried=attempt > 0)
                    return
                if attempt + 1 == _ADAPTIVE_ATTEMPTS or not quota.take():
                    break
                await asyncio.sleep(min(dice.random() * 2**attempt, _ADAPTIVE_LONGEST_SECONDS))
            response.raise_for_status()

        await _in_parallel(job, update, aiohttp.ClientError)


PEERS: dict[str, Peer] = {
    "openai": official,
    "cookbook-half": cookbook_at_half,
    "cookbook-twice": cookbook_at_twice,
    "tenacity": semaphore_and_tenacity,
    "adaptive": adaptive,
}


def main() -> None:
    """Run one peer until SIGTERM, or until it has no rows left, and print its tally."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow_peers", description=__doc__)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("base_url")
    parser.add_argument("rows", type=int, help="as many of the simulator's completions")
    parser.add_argument("per_minute", type=float, help="the simulator's limit")
    arguments = parser.parse_args()
    job = Job(arguments.base_url, completion_ids(arguments.rows), arguments.per_minute, Tally())
    uvloop.run(_until_stopped(PEERS[arguments.name], job))
    json.dump(asdict(job.tally), sys.stdout)


async def _until_stopped(peer: Peer, job: Job) -> None:
    working = asyncio.create_task(peer(job))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    await asyncio.wait([working])
    if not working.cancelled():
        working.result()


if __name__ == "__main__":
    main()
