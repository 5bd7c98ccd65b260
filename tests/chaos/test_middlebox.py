"""A middlebox drops, cuts, delays, duplicates and reorders answers while two workers are busy on one queue.

Every value holds the id of its completion, so that one that went astray shows; and the service remembers each map that
took effect, so that it shows even where it was put right later.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from worker.api import Client, RetryPolicy
from worker.api import client as client_module
from worker.changes import MetadataChange
from worker.engine import Ending, Options, Worker
from worker.queue import Store, open_queue
from worker.simulator import Fault, FaultKind, Simulator
from worker.simulator import Options as Service
from worker.simulator.delay import Delay

COMPLETIONS = 500
WAVES = 4
KEYS = ("topic", "grade", "draft", "source")

_LOST: tuple[FaultKind, ...] = ("dropped", "reset", "cut_off", "malformed", "late", "bad_gateway")
_MIXED_UP: tuple[FaultKind, ...] = ("shifted", "duplicate", "foreign")
_SHARE = 0.02
_TIMEOUT_SECONDS = 0.5  # of a request: less than the latest of the late answers


class Workload:
    """Changes of all kinds, each value with its completion's id and the change's number, and what they come to."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = count(1)
        self.wanted: dict[str, dict[str, str]] = {f"chatcmpl-{number:03d}": {} for number in range(COMPLETIONS)}
        self.put = 0

    def wave(self) -> list[MetadataChange]:
        """A few changes for each completion, those of all mixed."""
        ids = [each for each in self.wanted for _ in range(self._rng.randint(1, 3))]
        self._rng.shuffle(ids)
        self.put += len(ids)
        return [self._next(each) for each in ids]

    def _next(self, completion_id: str) -> MetadataChange:
        """One change, which is taken as done."""
        number = next(self._numbers)
        value = f"{completion_id}/{number:05d}"
        named = self._rng.sample(KEYS, 2)
        if self._rng.random() < 0.3:
            pairs = {"last": value, named[0]: value}
            self.wanted[completion_id] = pairs
            return MetadataChange(completion_id, pairs, mode="replace")
        before = self.wanted[completion_id]
        if self._rng.random() < 0.3:
            after = before | {"last": value, named[0]: value}
            self.wanted[completion_id] = {key: each for key, each in after.items() if key != named[1]}
            return MetadataChange(completion_id, {"last": value, named[0]: value, named[1]: None})
        self.wanted[completion_id] = before | {"last": value, named[0]: value}
        return MetadataChange(completion_id, {"last": value, named[0]: value})


@asynccontextmanager
async def _worker(path: Path, simulator: Simulator, *, drain: bool) -> AsyncIterator[Worker]:
    """A worker with a queue object and connections of its own, as in a process of its own."""
    options = Options(
        drain=drain,
        max_concurrency=16,
        batch_size=64,
        request_timeout_seconds=_TIMEOUT_SECONDS,
        read_lag_seconds=0.0,
        halt_timeout_seconds=20.0,
        retry_policy=RetryPolicy(base_seconds=0.02, cap_seconds=0.2),
    )
    async with (
        open_queue(f"sqlite:///{path}") as queue,
        Client(base_url=simulator.base_url, api_key="sk-test", max_connections=16) as client,
    ):
        yield Worker(queue, client, options, logger=_silent())


def _silent() -> CapturingLogger:
    return CapturingLogger()


async def _drained(path: Path, simulator: Simulator) -> list[Ending]:
    """How two workers end that drain the queue together."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(_worker(path, simulator, drain=True)) for _ in range(2)]
        return [summary.ending for summary in await asyncio.gather(*(worker.run() for worker in workers))]


def _has_applied(simulator: Simulator, updates: int) -> bool:
    return simulator.counters.updates_applied > updates


async def _work_off_waves(path: Path, simulator: Simulator, queue: Store, workload: Workload) -> Counter[str]:
    """Enqueue wave after wave while two workers are at it; give what became of the changes until they are stopped."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(_worker(path, simulator, drain=False)) for _ in range(2)]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        for _ in range(WAVES):
            await queue.put(workload.wave())
            enough = simulator.counters.updates_applied + COMPLETIONS // 2
            await simulator.until(partial(_has_applied, simulator, enough))
        for worker in workers:
            worker.stop()
        became = Counter[str]()
        for summary in await asyncio.gather(*running):
            totals = summary.totals
            became += Counter(applied=totals.applied, unchanged=totals.unchanged, dead=totals.dead)
        return became


def _strays(simulator: Simulator) -> list[str]:
    """Values that a completion has or had, and that were never given to it."""
    return [
        f"{completion_id} had {value}"
        for completion_id in simulator.all_metadata()
        for metadata in simulator.history(completion_id)
        for value in metadata.values()
        if not value.startswith(f"{completion_id}/")
    ]


def _disorder(simulator: Simulator) -> list[str]:
    """Completions whose changes took effect in another order than that in which they were enqueued."""
    lasts = {each: [metadata["last"] for metadata in simulator.history(each)] for each in simulator.all_metadata()}
    return [completion_id for completion_id, last in lasts.items() if last != sorted(last)]


@pytest.mark.parametrize("transport", ["direct", "session"])
async def test_answers_that_are_lost_late_doubled_or_mixed_up_spoil_no_completion(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_is_tested", lambda _: transport == "direct")
    workload, path = Workload(random.Random(14)), tmp_path / "queue.db"
    faults = tuple(Fault(kind, _SHARE) for kind in _LOST + _MIXED_UP)
    service = Service(seed=14, faults=faults, late_seconds=Delay(0.05, up_to_seconds=1.0), history=1_000)
    async with Simulator(service) as simulator, open_queue(f"sqlite:///{path}") as queue:
        simulator.seed_completions(workload.wanted)
        became = await _work_off_waves(path, simulator, queue, workload)
        left = (await queue.status()).pending
        assert (became["dead"], became["applied"] + became["unchanged"] + left) == (0, workload.put)
        assert await _drained(path, simulator) == [Ending.DRAINED, Ending.DRAINED]
        met = simulator.counters.faults
        simulator.options = replace(service, faults=())
        assert await _drained(path, simulator) == [Ending.DRAINED, Ending.DRAINED]
        status = await queue.status()
        assert (status.pending, status.dead) == (0, 0)
        assert _strays(simulator) == []
        assert _disorder(simulator) == []
        assert simulator.all_metadata() == workload.wanted
        assert (simulator.violations, simulator.read_violations) == ([], [])
        assert min(met[kind] for kind in _LOST + _MIXED_UP) >= 10, met  # each had its chance to spoil something
