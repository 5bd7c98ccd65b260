"""A crew of worker processes on one queue: its changes, and the checks at the end."""

import asyncio
import json
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count, groupby
from pathlib import Path
from typing import Any, Self

import pytest

from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator
from worker import MetadataChange, open_queue
from worker.queue import QueueUnavailable

WORKERS = 3
LEASE_SECONDS = 2.0
COMPLETIONS = 48
# Each merge leaves a pair of its own beside `last`, and a completion holds sixteen: there is room for 720 changes.

_POISON = "poison"
_POISONED_SHARE = 0.03
_HISTORY = "1000"  # more than any completion is given
_SETTLED_SECONDS = 60.0
_PROGRESS_SECONDS = 20.0
_END_SECONDS = 30.0
_LOOKS_BETWEEN = 30  # of two good changes: each is applied long before the next


class Workload:
    """Numbered changes whose traces show in the end, and what they come to.

    Half of the completions are given merges alone: each leaves a pair of its own. The others are given maps that
    replace what is there: which of them took effect, the service remembers.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = count(1)
        self._round: list[str] = []
        self.wanted: dict[str, dict[str, str]] = {f"chatcmpl-{number}": {} for number in range(COMPLETIONS)}
        self.replacements: dict[str, list[dict[str, str]]] = {replaced: [] for replaced in [*self.wanted][::2]}
        self.poisoned: set[str] = set()

    def draw(self, how_many: int) -> list[MetadataChange]:
        """Give the next changes, each of a completion drawn by lot; the service rejects a few of them."""
        return [self._next() for _ in range(how_many)]

    def draw_good(self) -> MetadataChange:
        """Give one more that the service takes."""
        return self._replacement(self._rng.choice([*self.replacements]))

    def _replacement(self, completion_id: str) -> MetadataChange:
        number = f"{next(self._numbers):04d}"
        self.wanted[completion_id] = {"last": number}
        self.replacements[completion_id].append(self.wanted[completion_id])
        return MetadataChange(completion_id, {"last": number}, mode="replace", change_id=number)

    def _next(self) -> MetadataChange:
        if not self._round:
            self._round = list(self.wanted)
            self._rng.shuffle(self._round)
        completion_id = self._round.pop()
        if completion_id in self.replacements:
            return self._replacement(completion_id)
        number = f"{next(self._numbers):04d}"
        if self._rng.random() < _POISONED_SHARE:
            self.poisoned.add(number)
            return MetadataChange(completion_id, {"last": number, number: _POISON}, change_id=number)
        pairs = {"last": number, number: "done"}
        self.wanted[completion_id] |= pairs
        return MetadataChange(completion_id, pairs, change_id=number)


class Crew:
    """Workers on one queue, of which there are always as many.

    Args:
        url: of the queue, as the workers reach it.
        direct_url: of the same queue, by a way that nothing happens to.
    """

    def __init__(
        self, folder: Path, simulator: RunningSimulator, rng: random.Random, url: str, direct_url: str
    ) -> None:
        self._folder = folder
        self._simulator = simulator
        self._rng = rng
        self._url = direct_url
        self._command = Command(
            folder,
            {
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": simulator.base_url,
                "METASYNC_QUEUE_URL": url,
                "METASYNC_STORE_TIMEOUT": "1s",
                "METASYNC_LEASE": f"{LEASE_SECONDS}s",
                "METASYNC_BATCH_SIZE": "8",  # so that there is something for each of them
                "METASYNC_MAX_CONCURRENCY": "8",
                "METASYNC_MAX_ATTEMPTS": "20",
                "METASYNC_LOG_FORMAT": "json",
                "METASYNC_LOG_LEVEL": "debug",
            },
        )
        self._logs = count(1)
        self._workers: dict[subprocess.Popen[bytes], Path] = {}  # with their logs
        self._workload = Workload(rng)

    @classmethod
    @asynccontextmanager
    async def at_work(
        cls, folder: Path, rng: random.Random, url: str, direct_url: str | None = None
    ) -> AsyncIterator[Self]:
        """Start a simulator and the workers, and see to it that none of them is left."""
        flags = ("--seed", "1", "--latency", "30ms-150ms", "--reject", _POISON, "--history", _HISTORY)
        with running_simulator(*flags) as simulator:
            crew = cls(folder, simulator, rng, url, direct_url or url)
            await crew._ask("/seed", {"ids": list(crew._workload.wanted)})
            with crew._started():
                await crew.put(2 * COMPLETIONS)
                await crew._until_all_have_started()  # one that finds no store at its start ends with exit code 75
                await crew._until_something_is_applied()
                yield crew

    async def put(self, how_many: int) -> list[MetadataChange]:
        """Enqueue further changes, and give them."""
        changes = self._workload.draw(how_many)
        async with open_queue(self._url) as queue:
            stored = await queue.put(changes)
        assert stored.added == how_many
        return changes

    async def see_progress(self) -> None:
        """Wait until the store is back, enqueue a few changes, and wait until one of these has had its effect."""
        async with asyncio.timeout(_PROGRESS_SECONDS):
            await self._until_the_store_answers()
            changes = await self.put(8)
            while not await self._has_effect(changes):
                await asyncio.sleep(0.1)

    def kill_one(self) -> None:
        """Kill a worker at any moment, and start another."""
        worker = self._draw_one()
        del self._workers[worker]
        _end(worker)
        self._start()

    async def freeze_one(self, seconds: float) -> None:
        """Let a worker do nothing for so long; then it goes on, not knowing of it."""
        worker = self._draw_one()
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        worker.send_signal(signal.SIGCONT)

    async def find_full(self, words: str) -> None:
        """See that the store takes nothing in, and says so in these words."""
        with pytest.raises(QueueUnavailable, match=words):
            async with open_queue(self._url) as queue:
                await queue.put([MetadataChange("chatcmpl-0", {"last": "refused"}, mode="replace")])

    async def until_told(self, words: str) -> None:
        """Wait until a worker logs these words, be it once more."""
        before = self._told(words)
        async with asyncio.timeout(_SETTLED_SECONDS):
            while self._told(words) == before:
                await asyncio.sleep(0.05)

    async def until_only_rejected_are_left(self) -> None:
        """Wait until no more is pending than the service rejects, which dies only when others get through later."""
        async with asyncio.timeout(_SETTLED_SECONDS), open_queue(self._url) as queue:
            while (await queue.status()).pending > len(self._workload.poisoned):
                await asyncio.sleep(0.1)

    async def _until_all_is_decided(self) -> None:
        """Wait until nothing is pending; what is rejected dies only after others got through: so others there are."""
        async with asyncio.timeout(_SETTLED_SECONDS), open_queue(self._url) as queue:
            for look in count():
                if not (await queue.status()).pending:
                    return
                if look % _LOOKS_BETWEEN == 0:
                    await queue.put([self._workload.draw_good()])
                await asyncio.sleep(0.1)

    async def check(self) -> None:
        """Let the same workers finish, then check that all that was put has had its effect, in order and one by one."""
        await self._until_all_is_decided()
        await self._until_all_have_started()  # before that, a signal ends a process without further ado
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker, log in self._workers.items():
            code = await asyncio.to_thread(worker.wait, _END_SECONDS)
            assert code == 0, log.read_text()[-2000:]
        drained = await asyncio.to_thread(self._command.run, "run", "--drain", timeout=_END_SECONDS)
        assert drained.returncode == 0, drained.stderr[-2000:]
        # Every merge that is not dead shows by a pair of its own; so what was put is applied or dead, to the last one.
        assert await self._ask("/metadata") == self._workload.wanted
        assert await self._dead() == sorted(self._workload.poisoned)
        for completion_id, enqueued in self._workload.replacements.items():
            took_effect = await self._ask(f"/history/{completion_id}")
            assert _is_in_order(took_effect, enqueued), (completion_id, took_effect, enqueued)
        # The service cannot be fenced: the promise is that a request starts and ends within its lease. Heartbeats leave
        # two thirds of a lease, or more, at any time, and that is eight times what a request takes here. So what a
        # worker had under way when it was frozen is over before another may claim the completion; and what it would
        # send when it wakes, the lost lease forbids. Not one meeting is excused.
        counters = await self._ask("/counters")
        assert (counters["violations"], counters["read_violations"]) == ([], [])

    async def _dead(self) -> list[str]:
        listed = await asyncio.to_thread(self._command.run, "dead", "list", "--json")
        assert listed.returncode == 0, listed.stderr
        return sorted(letter["change_id"] for letter in json.loads(listed.stdout))

    def _told(self, words: str) -> int:
        """How often the workers have logged these words."""
        return sum(log.read_text().count(words) for log in self._workers.values())

    async def _until_the_store_answers(self) -> None:
        while True:
            with suppress(QueueUnavailable):
                async with open_queue(self._url) as queue:
                    await queue.status()
                    return
            await asyncio.sleep(0.1)

    async def _has_effect(self, changes: Sequence[MetadataChange]) -> bool:
        """Whether one of the changes shows."""
        metadata = await self._ask("/metadata")
        return any(metadata[change.completion_id].get("last") == change.change_id for change in changes)

    async def _until_all_have_started(self) -> None:
        async with asyncio.timeout(_SETTLED_SECONDS):
            for worker, log in self._workers.items():
                while "worker.started" not in log.read_text():
                    assert worker.poll() is None, log.read_text()[-2000:]
                    await asyncio.sleep(0.05)

    async def _until_something_is_applied(self) -> None:
        async with asyncio.timeout(_SETTLED_SECONDS):
            while not (await self._ask("/counters"))["counters"]["updates_applied"]:
                await asyncio.sleep(0.05)

    async def _ask(self, path: str, order: object = None) -> Any:
        return await asyncio.to_thread(self._simulator.ask, path, order)

    @contextmanager
    def _started(self) -> Iterator[None]:
        try:
            for _ in range(WORKERS):
                self._start()
            yield
        finally:
            for worker in self._workers:
                _end(worker)

    def _start(self) -> None:
        path = self._folder / f"worker-{next(self._logs)}.log"
        with path.open("wb") as log:
            self._workers[self._command.start("run", stderr=log)] = path

    def _draw_one(self) -> "subprocess.Popen[bytes]":
        return self._rng.choice(list(self._workers))


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.communicate()


def _is_in_order(took_effect: list[dict[str, str]], enqueued: list[dict[str, str]]) -> bool:
    """Whether the maps came in the order in which they were enqueued, up to the last of them.

    Those that waited together became one request. One whose recording was cut short may have come twice in a row.
    """
    rest = iter(enqueued)
    return all(metadata in rest for metadata, _ in groupby(took_effect)) and took_effect[-1:] == enqueued[-1:]
