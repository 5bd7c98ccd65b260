"""What every store does alike, whatever it keeps its data in: waiting, dead letters piece by piece, and closing."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

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
_POLL_SECONDS = 1.0
_STRETCHES_BEYOND = 9  # of letters, that are looked at where none of the first stretch is too old
_LAST_NUMBER = 2**53  # no store counts further: Lua's numbers are exact up to here


@dataclass(frozen=True, slots=True)
class Stretch:
    """The letters of a selection whose numbers are above `after` and not above `until`.

    Args:
        most: how many to look at in one transaction, where it is not for the store to say.
    """

    selection: DeadSelection
    after: int
    until: int
    most: int | None = None

    def limit(self, usual: int) -> int:
        """How many letters to look at, of which a store usually takes so many."""
        return usual if self.most is None else min(usual, self.most)


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What one transaction found of a stretch, or did to it, from its first letter on.

    Args:
        last: the number of the last letter that was looked at; None when no letters are left in the stretch.
        newest: the number of the newest letter that there is.
    """

    result: T
    last: int | None
    newest: int


def last_number(until: int | None) -> int:
    """The highest letter's number to look at, as every store can count it."""
    return _LAST_NUMBER if until is None else max(0, min(until, _LAST_NUMBER))


class StoreBase(ABC):
    """A store's share of the contract that does not depend on what it is; one derives from this, and fills in the rest.

    `_work` is to be set whenever there may be something to claim.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._work = asyncio.Event()
        self._looked_to = 0  # the number of the letter up to which letters beyond the first ones were looked at

    def _warn_of_a_short_log(self) -> None:
        """Say, once, that what was confirmed goes before its time."""
        if _CUT_SHORT not in self.warnings:
            self.warnings = (*self.warnings, _CUT_SHORT)

    @abstractmethod
    async def _put(self, changes: Sequence[MetadataChange], terms: Terms) -> Stored:
        """Store the changes, all or none; a batch that is named is there from now on."""

    @abstractmethod
    async def _read_letters(self, stretch: Stretch) -> Part[list[DeadLetter]]:
        """Give the first letters of the stretch."""

    @abstractmethod
    async def _retry_letters(self, stretch: Stretch) -> Part[Revived]:
        """Make the first letters of the stretch changes again, but for those that are to stay dead; see `Revived`."""

    @abstractmethod
    async def _purge_letters(self, stretch: Stretch) -> Part[int]:
        """Delete the first letters of the stretch; tell how many there were."""

    @abstractmethod
    async def _read_pending(self, selection: PendingSelection, place: Any) -> tuple[list[QueuedChange], Any]:  # noqa: ANN401 -- each store's own
        """Give the selected changes from this place on, None being the start, and the next place, None for the end."""

    @abstractmethod
    async def _withdraw(self, selection: PendingSelection, place: Any) -> tuple[Withdrawn, Any]:  # noqa: ANN401 -- likewise
        """Take back the selected changes of a piece, from this place on; gives the next place too, None for the end.

        What comes once the first piece is done may be in a later one or not.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way and let go of the store."""

    @property
    def poll_seconds(self) -> float:
        """How often to ask what is due; see `Queue.poll_seconds`."""
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
        """Wait for this object's put, settle or retry_dead: what other processes do has to be polled for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._work.wait()
        was_heard = self._work.is_set()
        self._work.clear()
        return was_heard

    async def pending_changes(self, selection: PendingSelection = EVERYTHING) -> AsyncIterator[QueuedChange]:
        """Read what is pending, in pages; see `Store.pending_changes`."""
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
        """Take pending changes back; see `Batches.withdraw`."""
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
        """Read the letters that match, oldest first, in pages."""
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

        As a rule those are the first ones. A clock that was put back leaves letters in front that seem to be younger
        than what came after them: where none of the first is too old, a few others are looked at, the next time others.
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
            if part.last is None and start == beyond:  # these were all that there are
                break
        return part.result

    async def _parts(
        self, selection: DeadSelection, work: Callable[[Stretch], Awaitable[Part[T]]]
    ) -> AsyncIterator[Part[T]]:
        """Go through the letters that there are now, one transaction after another.

        Each is short, so that workers get their turn and no call takes too long; and letters that come back
        meanwhile, because what was retried died again, are not met a second time.
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
