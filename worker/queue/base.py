"""The part of a store that is the same for all backends: waiting, dead letters in pieces, and closing."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from worker.changes import MetadataChange
from worker.changes.mapping import Changes
from worker.queue.batch import EVERYTHING, PendingSelection, Terms, Withdrawn
from worker.queue.letters import DeadLetter, DeadSelection, Revived
from worker.queue.pending import QueuedChange, Stored
from worker.queue.pieces import Taken, pieces_of_any

T = TypeVar("T")

_CUT_SHORT = (
    "more is confirmed than is kept (the last 200,000 updates): what the service shows may be older than the oldest of"
    " them, and merges may be built upon it; lower METASYNC_READ_LAG or the rate"
)
PAGE = 250  # changes or letters to read at once: each may have 32 KB, and is there several times on its way
_POLL_SECONDS = 1.0
_STRETCHES_BEYOND = 9  # letters to examine elsewhere, if none of the first stretch is too old
_LAST_NUMBER = 2**53  # the largest exact integer of Lua, and so of every store


class Stretch(msgspec.Struct, frozen=True):
    """The letters of a selection whose numbers are above `after` and not above `until`.

    Args:
        most: how many to examine in one transaction; None for the store's own limit.
    """

    selection: DeadSelection
    after: int
    until: int
    most: int | None = None

    def limit(self, usual: int) -> int:
        """How many letters to examine; `usual` is the store's own limit."""
        return usual if self.most is None else min(usual, self.most)


class Part(msgspec.Struct, Generic[T], frozen=True):
    """The result of one transaction on the first letters of a stretch.

    Args:
        last: the number of the last examined letter; None if no letters are left in the stretch.
        newest: the number of the store's newest letter.
    """

    result: T
    last: int | None
    newest: int


def last_number(until: int | None) -> int:
    """The highest letter number to examine, within every store's range."""
    return _LAST_NUMBER if until is None else max(0, min(until, _LAST_NUMBER))


class StoreBase(ABC):
    """The part of the contract that does not depend on the backend, which derives from this class.

    The backend sets `_work` whenever there may be something to claim.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._work = asyncio.Event()
        self._looked_to = 0  # letters up to this number, beyond the first ones, were examined

    def _warn_of_a_short_log(self) -> None:
        """Warn, once, that confirmed maps are dropped early."""
        if _CUT_SHORT not in self.warnings:
            self.warnings = (*self.warnings, _CUT_SHORT)

    @abstractmethod
    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        """Store the changes, all or none; create the named batch if it does not exist."""

    @abstractmethod
    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        """Return the first letters of the stretch."""

    @abstractmethod
    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        """Make the first letters of the stretch pending again, except those that must stay dead; see `Revived`."""

    @abstractmethod
    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        """Delete the first letters of the stretch; return how many there were."""

    @abstractmethod
    async def _read_pending(self, selection: PendingSelection, place: Any) -> tuple[list[QueuedChange], Any]:  # noqa: ANN401 -- the store's own type
        """Return selected changes from this place on (None: the start), and the next place (None: the end)."""

    @abstractmethod
    async def _withdraw(self, selection: PendingSelection, place: Any) -> tuple[Withdrawn, Any]:  # noqa: ANN401 -- as above
        """Withdraw the selected changes of one piece, from this place on; also return the next place (None: the end).

        Changes that arrive after the first piece may or may not be included.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish calls under way and close the store."""

    @property
    def poll_seconds(self) -> float:
        """How often to poll for due work; see `Queue.poll_seconds`."""
        return _POLL_SECONDS

    async def put(self, changes: Changes, *, batch: str | None = None, urgent: bool = False) -> Stored:
        """Store the changes; see `Queue.put`."""
        terms = Terms(batch, urgent).checked()
        with Taken() as taken:
            async for piece in pieces_of_any(changes):
                if piece:
                    taken.add(await self._put(piece, terms))
        return taken.stored

    async def wait_for_work(self, timeout_seconds: float) -> bool:
        """Wait for this object's put, settle or retry_dead; other processes' calls must be polled for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        was_heard = self._work.is_set()
        self._work.clear()
        return was_heard

    async def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        """Read pending changes in pages; see `Store.pending_changes`."""
        place = None
        while True:
            changes, place = await self._read_pending(selection, place)
            for change in changes:
                yield change
            if place is None:
                return

    async def withdraw(
        self, selection: PendingSelection, *, go_on: Callable[[Withdrawn], bool] | None = None
    ) -> Withdrawn:
        """Withdraw pending changes; see `Batches.withdraw`."""
        if selection.is_everything:
            raise ValueError("say which changes to withdraw: of a batch, a completion or a change_id")
        so_far = Withdrawn(0, 0)
        place = None
        while True:
            part, place = await self._withdraw(selection, place)
            so_far = so_far.and_also(part)
            if place is None or (go_on is not None and not go_on(so_far)):
                return so_far

    async def dead_letters(self, selection: DeadSelection) -> AsyncIterator[DeadLetter]:
        """Read matching letters, oldest first, in pages."""
        async for part in self._parts(selection, self._read_letters):
            for letter in part.result:
                yield letter

    async def retry_dead(self, selection: DeadSelection, *, go_on: Callable[[Revived], bool] | None = None) -> Revived:
        """Make the letters pending again; see `DeadLetters.retry_dead`. A large number takes several transactions."""
        so_far = Revived(0, 0)
        async for part in self._parts(selection, self._retry_letters):
            so_far = so_far.and_also(part.result)
            self._work.set()
            if part.last is not None and go_on is not None and not go_on(so_far):
                break
        return so_far

    async def purge_dead(self, selection: DeadSelection, *, go_on: Callable[[int], bool] | None = None) -> int:
        """Delete the letters; see `DeadLetters.purge_dead`. A large number takes several transactions."""
        so_far = 0
        async for part in self._parts(selection, self._purge_letters):
            so_far += part.result
            if part.last is not None and go_on is not None and not go_on(so_far):
                break
        return so_far

    async def expire_dead(self, older_than_seconds: float, *, most: int) -> int:
        """Delete the oldest letters; see `DeadLetters.expire_dead`.

        Usually the first letters are the oldest. But after a clock was put back, letters in front seem younger than
        later ones. If none of the first is too old, a few others are examined, different ones each time.
        """
        selection = DeadSelection(older_than_seconds=older_than_seconds)
        part = await self._purge_letters(Stretch(selection, 0, last_number(None), most))
        beyond = part.last
        for _ in range(_STRETCHES_BEYOND):
            if part.result or beyond is None:
                break
            if not beyond <= self._looked_to < part.newest:
                self._looked_to = beyond
            start = self._looked_to
            part = await self._purge_letters(Stretch(selection, start, last_number(None), most))
            self._looked_to = part.last or 0
            if part.last is None and start == beyond:  # these were all letters
                break
        return part.result

    async def _parts(
        self, selection: DeadSelection, work: Callable[[Stretch], Awaitable[Part[T]]]
    ) -> AsyncIterator[Part[T]]:
        """Go through the current letters, one transaction after another.

        Each transaction is short, so that workers get their turn and no call takes too long. Letters that come back
        meanwhile, because a retried change died again, are not visited a second time.
        """
        stretch = Stretch(selection, after=0, until=last_number(selection.until))
        while True:
            part = await work(stretch)
            yield part
            if part.last is None:
                return
            stretch = Stretch(selection, part.last, min(stretch.until, part.newest))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
