"""A store: the one object that serves as queue, batches, dead letters, coordination and history."""

from collections.abc import AsyncIterator
from typing import Protocol, Self

from worker.queue.batch import EVERYTHING, Batches, PendingSelection
from worker.queue.coordination import Coordination
from worker.queue.history import History
from worker.queue.letters import DeadLetters
from worker.queue.pending import Queue, QueuedChange


class Store(Queue, Batches, DeadLetters, Coordination, History, Protocol):
    """All that a store does. Safe to use from many processes at once.

    Every method may raise `QueueUnavailable`; then nothing was changed, or, where the store's answer was lost,
    what was changed is safe to do again.

    `warnings` says what the person who runs it should know about the store, a sentence each.
    """

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        """What is pending, those of a completion in their order, read in pages; nothing is leased or changed.

        Changes that come or go meanwhile are among them or not; none is there twice.

        Args:
            selection: which; one that names a completion or a change_id is looked up, any other is looked for in all.
        """

    async def close(self) -> None:
        """Finish what is under way and let go of the store."""


class Backend(Store, Protocol):
    """A kind of store, as `open_queue` chooses it by the URL."""

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float, create: bool) -> Self:
        """Open the store at this URL, creating or upgrading its schema where that is safe; see `open_queue`."""

    @staticmethod
    def migration_sql() -> str:
        """What creates the schema in an empty store; see `worker.queue.migration_sql`."""
