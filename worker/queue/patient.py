"""A store that may be unavailable at first: each call fails until it can be opened."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from inspect import iscoroutinefunction
from typing import Any, cast

from worker.queue.batch import EVERYTHING, PendingSelection
from worker.queue.errors import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable
from worker.queue.letters import DeadLetter, DeadSelection
from worker.queue.opening import open_store
from worker.queue.pending import QueuedChange
from worker.queue.store import Store

_CLOSE_SECONDS = 2.0  # all acknowledged data is durable; do not wait longer for an unreachable store
_PAUSE_SECONDS = 1.0  # between two attempts, for any number of callers

ReadUrl = Callable[[], Awaitable[str]]


@asynccontextmanager
async def open_patiently(
    read_url: ReadUrl, *, timeout_seconds: float, on_open: Callable[[Store], None]
) -> AsyncIterator[Store]:
    """Yield a store that is opened as soon as possible, and closed at the end; until then its calls fail.

    Args:
        read_url: returns the current URL of the settings; called again after a failure, because a password may have
            been rotated or the store moved.
        timeout_seconds: for every call to the store.
        on_open: called with the opened store.

    Raises, from each call:
        QueueMisnamed: the URL can never name a queue, and never did.
        QueueUnavailable: the store is unavailable, or not opened yet.
    """
    patient = _Patient(read_url, timeout_seconds, on_open)
    try:
        yield cast("Store", patient)  # it forwards every call to the opened store
    finally:
        await patient.close()


class _Patient:
    def __init__(self, read_url: ReadUrl, timeout_seconds: float, on_open: Callable[[Store], None]) -> None:
        self._read_url = read_url
        self._timeout_seconds = timeout_seconds
        self._on_open = on_open
        self._url: str | None = None
        self._store: Store | None = None
        self._has_served = False
        self._opening: asyncio.Task[None] | None = None
        self._failure: QueueError | None = None
        self._next_at = 0.0

    def __repr__(self) -> str:
        return f"<Patient [{self._store or self._failure or 'not opened'}]>"

    @property
    def warnings(self) -> tuple[str, ...]:
        return () if self._store is None else self._store.warnings

    @property
    def poll_seconds(self) -> float:
        return _PAUSE_SECONDS if self._store is None else self._store.poll_seconds

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return one of the store's methods."""
        if not iscoroutinefunction(getattr(Store, name, None)):  # the members that are not coroutines are defined above
            raise AttributeError(name)

        async def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- the store's own arguments
            store = await self._opened()
            try:
                answer = await getattr(store, name)(*arguments, **named)
            except QueueUnavailable:
                self._look_elsewhere()
                raise
            except QueueMisnamed as error:
                if not self._has_served:
                    raise
                raise QueueUnusable(str(error)) from None  # the URL was right before, so this may be temporary
            self._has_served = True
            return answer

        return call

    async def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Read the letters; see `DeadLetters.dead_letters`."""
        store = await self._opened()
        async for letter in store.dead_letters(selection):
            yield letter

    async def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        """Read pending changes; see `Store.pending_changes`."""
        store = await self._opened()
        async for change in store.pending_changes(selection):
            yield change

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError, QueueError):
                await self._opening
        if self._store is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._store.close()

    async def _opened(self) -> Store:
        """Return the store; concurrent callers share one attempt, which may outlast each caller's time-out."""
        if self._store is None:
            if self._opening is None and self._failure is not None and time.monotonic() < self._next_at:
                raise self._failure.with_traceback(None)
            await asyncio.shield(self._opening or self._begin())
            assert self._store is not None  # noqa: S101 -- otherwise the attempt has raised
        return self._store

    def _look_elsewhere(self) -> None:
        """Reopen the store if its URL has changed."""
        if self._opening is None and time.monotonic() >= self._next_at:
            self._begin()

    def _begin(self) -> asyncio.Task[None]:
        self._opening = asyncio.create_task(self._open())
        self._opening.add_done_callback(self._ended)
        return self._opening

    def _ended(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        self._next_at = time.monotonic() + _PAUSE_SECONDS
        error = None if opening.cancelled() else opening.exception()
        self._failure = error if isinstance(error, QueueError) else None

    async def _open(self) -> None:
        url = await self._read_url()
        if self._store is not None and url == self._url:
            return
        store = await open_store(url, timeout_seconds=self._timeout_seconds)
        self._url, self._store, before = url, store, self._store
        self._on_open(store)
        if before is not None:
            await before.close()
