"""A store: one object for queue, batches, dead letters, coordination and history."""

from collections.abc import AsyncIterator
from typing import Protocol, Self

from worker.queue.batch import EVERYTHING, Batches, PendingSelection
from worker.queue.coordination import Coordination
from worker.queue.history import History
from worker.queue.letters import DeadLetters
from worker.queue.pending import Queue, QueuedChange


class Store(Queue, Batches, DeadLetters, Coordination, History, Protocol):
    """The whole contract of a store. Many processes may use it at once.

    Every method may raise `QueueUnavailable`. Then nothing was changed; or the store's answer was lost, and the same
    call can safely be repeated.

    `warnings` says what the store's operator should know, one sentence each.
    """

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        """Yield pending changes in pages, those of a completion in order; nothing is leased or changed.

        Changes that arrive or end meanwhile may or may not be included; none comes twice.

        Args:
            selection: uses an index if it names a completion or a change_id; otherwise all changes are scanned.
        """

    async def close(self) -> None:
        """Finish calls under way and close the store."""


class Backend(Store, Protocol):
    """A kind of store; `open_queue` chooses it by the URL."""

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float, create: bool) -> Self:
        """Open the store at this URL, creating or upgrading its schema if that is safe; see `open_queue`."""

    @staticmethod
    def migration_sql() -> str:
        """Return what creates the schema in an empty store; see `worker.queue.migration_sql`."""
