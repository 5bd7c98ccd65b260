"""Read in a thread; yield full pieces, or a part when no more input arrives for a while."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from worker.changes import MetadataChange
from worker.changes.files import Item, Refusal
from worker.changes.patience import Patience, Stopped
from worker.cli.inputs import Inputs
from worker.threads import in_thread

_PIECE_LINES = 5_000
_PIECE_TEXT_BYTES = 1_500_000
_LOOK_EVERY = 8  # lines: how often the size is checked
# After this time without input, the lines of a slow producer are stored.
_IDLE_SECONDS = 1.0


@dataclass(slots=True)
class Piece:
    """Consecutive lines and their changes.

    Args:
        places: file and line of each change.
        blank: how many rows are blank.
        last: file and line of the last line, if there is one.
        bytes_read: how many bytes of input have been read with them.
    """

    changes: list[MetadataChange] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    blank: int = 0
    last: tuple[str, int] | None = None
    bytes_read: int = 0

    def leave_out(self, item: Item) -> None:
        """Add a line that is no change."""
        if isinstance(item, Refusal):
            self.refused.append(item)
        else:
            self.blank += 1


@asynccontextmanager
async def pieces(inputs: Inputs, patience: Patience) -> AsyncIterator[AsyncIterator[Piece]]:
    """Read in a thread, one piece ahead of the caller; leaving the context stops the reading."""
    loop = asyncio.get_running_loop()
    handed_over: asyncio.Queue[Piece | None] = asyncio.Queue(1)

    def hand_over(piece: Piece | None) -> None:
        asyncio.run_coroutine_threadsafe(handed_over.put(piece), loop).result()

    def read() -> None:
        try:
            _read(inputs, patience, hand_over)
        except Stopped:
            pass
        finally:
            hand_over(None)

    async def taken() -> AsyncIterator[Piece]:
        while (piece := await handed_over.get()) is not None:
            yield piece
        await handed_over.put(None)  # wakes the caller when the reading stops

    reading = in_thread(read)
    try:
        yield taken()
    finally:
        patience.stop()
        while await handed_over.get() is not None:
            pass
        await reading


def _read(inputs: Inputs, patience: Patience, hand_over: Callable[[Piece], object]) -> None:
    piece = Piece()
    size = text_before = 0
    last: tuple[str, int] | None = None

    def flush() -> None:
        nonlocal piece, size, text_before, last
        patience.interrupt_at(None)
        full, piece = piece, Piece()
        if size:
            full.last, last = last, None
            full.bytes_read = inputs.bytes_read
            size, text_before = 0, inputs.text_bytes
            hand_over(full)

    for name, items in inputs.files():
        for number, item in items:
            if size == 0:
                patience.interrupt_at(time.monotonic() + _IDLE_SECONDS, flush)
            size += 1
            place = (name, number)
            if type(item) is MetadataChange:  # nearly all are
                piece.changes.append(item)
                piece.places.append(place)
            else:
                piece.leave_out(item)
            last = place if number else last  # line 0 means the whole file
            if size % _LOOK_EVERY:
                continue
            if size >= _PIECE_LINES or inputs.text_bytes - text_before > _PIECE_TEXT_BYTES:
                flush()
            patience.check()
    flush()
