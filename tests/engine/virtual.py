"""A whole worker in virtual time: hours of outage in milliseconds, with a queue in memory and a scripted service."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import CapturingLogger

from worker.api import Answer, Kind, Verdict
from worker.changes import MetadataChange, Mode
from worker.engine import Options, Summary, Worker
from worker.engine.clock import Clock
from worker.flow import Operation
from worker.queue import DeadLetter, DeadSelection
from worker.queue.memory import MemoryQueue

START = 1_700_000_000.0  # Unix time at which virtual time begins

OK = Verdict(Kind.OK, 200)


@dataclass(frozen=True)
class Request:
    """One request, seen by the service."""

    operation: Operation
    completion_id: str
    at: float
    metadata: dict[str, str] | None = None
    fresh: bool = False


# The service's answer to a request; None lets it do its work.
Trouble = Callable[[Request], Verdict | Answer | None]


@dataclass
class Service:
    """Stored completions that updates replace, with any trouble that a test wants."""

    stored: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    trouble: Trouble = lambda _: None
    latency_seconds: float = 0.2
    requests: list[Request] = field(default_factory=list)

    async def get(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        return await self._answer(Request("get", completion_id, self._now()), timeout_seconds)

    async def update(
        self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float, fresh: bool = False
    ) -> Answer:
        return await self._answer(Request("update", completion_id, self._now(), dict(metadata), fresh), timeout_seconds)

    def count(self, operation: Operation | None = None) -> int:
        return sum(operation in (None, request.operation) for request in self.requests)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _answer(self, request: Request, timeout_seconds: float) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(min(self.latency_seconds, timeout_seconds))
        if self.latency_seconds > timeout_seconds:
            return Answer(Verdict(Kind.RETRY, error="no answer in time", transport=True))
        met = self.trouble(request)
        if isinstance(met, Answer):
            return met
        if met is not None:
            return Answer(met)
        if request.metadata is not None:
            self.stored[request.completion_id] = request.metadata
        return Answer(OK, dict(self.stored[request.completion_id]), duration_ms=self.latency_seconds * 1_000)


@dataclass
class Stage:
    """A queue, a service and workers between them, all on the virtual clock. Use it within `tests.virtual.run`."""

    service: Service = field(default_factory=Service)
    logger: CapturingLogger = field(default_factory=CapturingLogger)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(monotonic=loop.time, unix=lambda: START + loop.time())
        self.queue = MemoryQueue(clock=self.clock.unix)

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def worker(self, *, queue: Any = None, **options: Any) -> Worker:
        given = Options(**{"drain": True, "max_concurrency": 8} | options)
        return Worker(queue or self.queue, self.service, given, clock=self.clock, logger=self.bound)

    async def drain(self, **options: Any) -> Summary:
        return await self.worker(**options).run()

    async def put(self, *completion_ids: str, mode: Mode = "replace", **pairs: str | None) -> None:
        metadata = pairs or {"grade": "A"}
        await self.queue.put([MetadataChange(completion_id, metadata, mode) for completion_id in completion_ids])

    async def dead(self) -> list[DeadLetter]:
        return [letter async for letter in self.queue.dead_letters(DeadSelection())]

    async def attempts(self) -> list[int]:
        """The records of all pending changes in the store; this ends every lease."""
        await asyncio.sleep(3_600)
        claims = await self.queue.claim(10_000, lease_seconds=1.0, owner="test")
        return [max(int(each.trials or 0) for each in claimed.changes) for claimed in claims]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of each logged event of this name."""
        return [call.kwargs for call in self.logger.calls if call.args == (name,)]

    @property
    def bound(self) -> Any:
        """CapturingLogger takes any method; a bound logger is all that the engine knows."""
        return self.logger


def ids(count: int) -> list[str]:
    """So many ids of completions."""
    return [f"chatcmpl-{number:06d}" for number in range(count)]
