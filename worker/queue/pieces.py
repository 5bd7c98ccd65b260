"""What producers hand to `put`: one change or many, of any iterable, made into pieces that a store takes whole."""

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from worker.changes import InvalidChange, MetadataChange
from worker.changes.mapping import Changes, change_from
from worker.queue.errors import QueueError
from worker.queue.pending import Stored

_PIECE = 5_000
_PIECE_CHARACTERS = 8_000_000


class Taken:
    """What became of the pieces of a call so far; within it, an error learns how many changes had been taken."""

    def __init__(self) -> None:
        self.stored = Stored(0, 0)

    def add(self, stored: Stored) -> None:
        """Add what became of the next piece."""
        so_far, size = self.stored, self._size
        self.stored = Stored(
            so_far.added + stored.added,
            so_far.duplicates + stored.duplicates,
            (*so_far.conflicts, *[size + position for position in stored.conflicts]),
            Counter(so_far.pending_in) + Counter(stored.pending_in),
        )

    @property
    def _size(self) -> int:
        return self.stored.added + self.stored.duplicates + len(self.stored.conflicts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, QueueError | InvalidChange):
            error.taken = self._size
        if error is not None and self._size:
            error.add_note(f"{self._size:,} changes of the call had been taken before")


class _Piece:
    """The changes of a call, in pieces that are bounded in number and size."""

    def __init__(self) -> None:
        self.changes: list[MetadataChange] = []
        self._position = 0
        self._characters = 0

    def add(self, given: object) -> bool:
        """Take the next one; tell whether the piece is full with it.

        Raises:
            InvalidChange: it is none, or breaks a rule.
        """
        change = checked(given, self._position)
        self._position += 1
        self._characters += sum([len(key) + len(value or "") for key, value in change.metadata.items()])
        self.changes.append(change)
        return len(self.changes) == _PIECE or self._characters >= _PIECE_CHARACTERS

    def take(self) -> list[MetadataChange]:
        """Hand the piece over, and begin the next one."""
        taken, self.changes, self._characters = self.changes, [], 0
        return taken


def pieces(changes: object) -> Iterator[list[MetadataChange]]:
    """Give what is to be stored whole: one change, a list or a tuple as it is, of other iterables a piece at a time.

    Raises:
        InvalidChange: one of them is no change; it says at which position, from 0.
        TypeError: `changes` is neither a change nor an iterable of them.
    """
    if isinstance(changes, MetadataChange | Mapping):
        changes = [changes]
    if isinstance(changes, str | bytes | bytearray) or not isinstance(changes, Iterable):
        raise TypeError(f"put takes a change, or an iterable of changes, not a {type(changes).__name__}")
    if isinstance(changes, list | tuple):
        yield [checked(given, position) for position, given in enumerate(changes)]
        return
    piece = _Piece()
    for given in changes:
        if piece.add(given):
            yield piece.take()
    yield piece.take()


async def pieces_of_any(changes: Changes) -> AsyncIterator[list[MetadataChange]]:
    """Give what is to be stored whole, of an async iterable too; see `pieces`."""
    if not isinstance(changes, AsyncIterable):
        for taken in pieces(changes):
            yield taken
        return
    piece = _Piece()
    async for given in changes:
        if piece.add(given):
            yield piece.take()
    yield piece.take()


def checked(given: object, position: int) -> MetadataChange:
    """The change at this position of a call.

    Raises:
        InvalidChange: it is none, or breaks a rule.
    """
    if type(given) is MetadataChange:
        return given
    try:
        return change_from(given)
    except InvalidChange as error:
        raise InvalidChange(f"{error} (position {position} of what was put)") from None
