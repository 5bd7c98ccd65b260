"""A stage for hours of trouble: its queue waits instead of polling, and shows the counted failures of each change."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from config.settings import Loaded, Settings
from tests.engine.virtual import Service, Stage
from worker.cli.exits import Exit
from worker.cli.job import Job
from worker.cli.session import exit_code
from worker.engine import Options, Summary, Worker
from worker.engine.trials import Trials, trials_of
from worker.queue import Note
from worker.queue.memory import MemoryQueue

_LONGEST_WAIT_SECONDS = 60.0
_NOTES_SECONDS = 30.0


class PatientQueue(MemoryQueue):
    """A queue in memory, for a single worker, that knows when it has to be polled.

    No other worker uses it, so that polling it each second and reading notes finds nothing. These are most of the cost
    of hours of a halted worker.
    """

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        due_seconds = await self.next_due_seconds()
        if due_seconds is None or due_seconds > timeout_seconds:
            timeout_seconds = min(due_seconds or _LONGEST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        return await super().wait_for_work(timeout_seconds)

    async def read_notes(self) -> dict[str, Note]:
        task = asyncio.current_task()
        if task is not None and task.get_name() == "sharing":  # and not the reads of a worker before it starts
            await asyncio.sleep(_NOTES_SECONDS)
        return await super().read_notes()


@dataclass
class House(Stage):
    """A stage that shows the record of each change in the store.

    Args:
        has_replicas: there will be several workers, so that the store has to be polled.
    """

    has_replicas: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.has_replicas:
            self.queue = PatientQueue(clock=self.clock.unix)

    def replica(self, name: str, service: Service | None = None, **options: Any) -> Worker:
        """A worker of this name, as if on another machine."""
        given = Options(**{"drain": True, "max_concurrency": 8} | options)
        with patch("worker.engine.worker.socket.gethostname", return_value=name):
            return Worker(self.queue, service or self.service, given, clock=self.clock, logger=self.bound)

    @asynccontextmanager
    async def daemon(self, **options: Any) -> AsyncIterator[Worker]:
        """A worker that runs within this context."""
        worker = self.worker(drain=False, **options)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await running

    def trials(self) -> dict[str, Trials]:
        """The records of the pending changes, by completion; of several, the one with the most failures."""
        return {
            completion_id: max(
                (trials_of(change) for change in target.changes.values()), key=lambda each: each.failures
            )
            for completion_id, target in self.queue._targets.items()
        }

    def counted(self) -> int:
        """The most counted failures of any pending change."""
        return max((trials.counted for trials in self.trials().values()), default=0)

    def left(self) -> int:
        """How many completions have pending changes."""
        return len(self.queue._targets)

    def sent(self, since: float, until: float) -> int:
        """How many requests started in this time."""
        return sum(since <= request.at < until for request in self.service.requests)

    async def emptied(self, within_seconds: float) -> float:
        """Wait until the queue is empty, for no longer than this; return how long it took."""
        began_at = self.now
        while self.left() and self.now - began_at < within_seconds:
            await asyncio.sleep(0.5)
        return self.now - began_at

    def applied_at(self) -> dict[str, float]:
        """When each completion's successful update was sent."""
        return {
            request.completion_id: request.at
            for request in self.service.requests
            if request.operation == "update" and self.service.stored.get(request.completion_id) == request.metadata
        }


def exit_of(summary: Summary, *, drain: bool = True) -> Exit:
    """The exit code of the command."""
    return exit_code(summary, Job(Settings.model_construct(), _never_read, drain=drain))


def _never_read() -> Loaded:
    raise AssertionError("an exit code needs no settings")
