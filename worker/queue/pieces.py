"""Divide the changes of a `put` call into pieces that a store accepts at once."""

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
    """The result of a call's pieces so far; as a context, it adds the number of stored changes to errors."""

    def __init__(self) -> None:
        self.stored = Stored(0, 0)

    def add(self, stored: Stored) -> None:
        """Add the result of the next piece."""
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
    """Collects changes to a piece, bounded in number and size."""

    def __init__(self) -> None:
        self.changes: list[MetadataChange] = []
        self._position = 0
        self._characters = 0

    def add(self, given: object) -> bool:
        """Add the next change; True if the piece is full now.

        Raises:
            InvalidChange: it is no change, or breaks a rule.
        """
        change = checked(given, self._position)
        self._position += 1
        self._characters += sum([len(key) + len(value or "") for key, value in change.metadata.items()])
        self.changes.append(change)
        return len(self.changes) == _PIECE or self._characters >= _PIECE_CHARACTERS

    def take(self) -> list[MetadataChange]:
        """Return the piece, and begin the next one."""
        taken, self.changes, self._characters = self.changes, [], 0
        return taken


def pieces(changes: object) -> Iterator[list[MetadataChange]]:
    """Yield pieces: one change, a list or a tuple as a whole; other iterables piece by piece.

    Raises:
        InvalidChange: one of them is no valid change; the message has its position, from 0.
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
    """Yield pieces, of an async iterable, too; see `pieces`."""
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
    """Return the valid change at this position of a call.

    Raises:
        InvalidChange: it is no change, or breaks a rule.
    """
    if type(given) is MetadataChange:
        return given
    try:
        return change_from(given)
    except InvalidChange as error:
        raise InvalidChange(f"{error} (position {position} of what was put)") from None
