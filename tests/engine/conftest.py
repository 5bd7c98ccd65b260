"""The engine as it runs: a real queue file, a real simulator on a socket, the real client."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from worker.api import Client, RetryPolicy
from worker.changes import MetadataChange, Mode
from worker.engine import Options, Summary, Worker
from worker.engine.keys import ReadKey
from worker.queue import DeadLetter, DeadSelection, Store, open_queue
from worker.simulator import Simulator

FAST = RetryPolicy(base_seconds=0.01, cap_seconds=0.05)


@dataclass
class Bench:
    """A queue, a service, and workers between them on demand."""

    queue: Store
    simulator: Simulator
    client: Client
    logger: CapturingLogger

    def worker(
        self,
        *,
        queue: Store | None = None,
        read_key: ReadKey | None = None,
        **options: Any,
    ) -> Worker:
        defaults: dict[str, Any] = {"drain": True, "retry_policy": FAST}
        return Worker(
            queue or self.queue,
            self.client,
            Options(**defaults | options),
            read_key=read_key,
            logger=_bound(self.logger),
        )

    async def drain(self, **options: Any) -> Summary:
        return await self.worker(**options).run()

    async def put(self, completion_id: str, *metadata: Mapping[str, str | None], mode: Mode = "merge") -> None:
        await self.queue.put([MetadataChange(completion_id, pairs, mode) for pairs in metadata])

    async def dead(self) -> list[DeadLetter]:
        return [letter async for letter in self.queue.dead_letters(DeadSelection())]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of each logged event of this name."""
        return [call.kwargs for call in self.logger.calls if call.args == (name,)]


def _bound(logger: CapturingLogger) -> FilteringBoundLogger:
    """CapturingLogger takes any method; a bound logger is all that the engine knows."""
    return logger


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_queue(f"sqlite:///{tmp_path}/queue.db") as opened:
        yield opened


@pytest.fixture
async def bench(queue: Store, simulator: Simulator) -> AsyncIterator[Bench]:
    async with Client(base_url=simulator.base_url, api_key="sk-test") as client:
        yield Bench(queue, simulator, client, CapturingLogger())
