"""A store that may be away when it is opened: each call says so, until it is there."""

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

_CLOSE_SECONDS = 2.0  # what was promised is durable; a store that takes no packets any more is left behind
_PAUSE_SECONDS = 1.0  # between two attempts, however many ask

ReadUrl = Callable[[], Awaitable[str]]


@asynccontextmanager
async def open_patiently(
    read_url: ReadUrl, *, timeout_seconds: float, on_open: Callable[[Store], None]
) -> AsyncIterator[Store]:
    """Give a store that is opened as soon as it can be, and close it in the end; until then its calls fail.

    Args:
        read_url: the URL as the settings have it now. It is read again when the store fails: a password may have been
            rotated, or the store have moved.
        timeout_seconds: of every call to the store.
        on_open: is told of the store that was opened.

    Raises, from each call:
        QueueMisnamed: what the URL names can never serve as a queue, and never did.
        QueueUnavailable: the store is not there, or not there yet.
    """
    patient = _Patient(read_url, timeout_seconds, on_open)
    try:
        yield cast("Store", patient)  # whatever is asked of it, the store that it opens is asked
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
        """One of the store's methods."""
        if not iscoroutinefunction(getattr(Store, name, None)):  # what can be had without waiting is named above
            raise AttributeError(name)

        async def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- whatever the store's method takes
            store = await self._opened()
            try:
                answer = await getattr(store, name)(*arguments, **named)
            except QueueUnavailable:
                self._look_elsewhere()
                raise
            except QueueMisnamed as error:
                if not self._has_served:
                    raise
                raise QueueUnusable(str(error)) from None  # it was named well: what is there now may go again
            self._has_served = True
            return answer

        return call

    async def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Read the letters; see `DeadLetters.dead_letters`."""
        store = await self._opened()
        async for letter in store.dead_letters(selection):
            yield letter

    async def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        """Read what is pending; see `Store.pending_changes`."""
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
        """The store; one attempt serves all who ask meanwhile, and lasts longer than any of them may wait."""
        if self._store is None:
            if self._opening is None and self._failure is not None and time.monotonic() < self._next_at:
                raise self._failure.with_traceback(None)
            await asyncio.shield(self._opening or self._begin())
            assert self._store is not None  # noqa: S101 -- else it has raised
        return self._store

    def _look_elsewhere(self) -> None:
        """Open the store anew where its URL is another one by now."""
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
