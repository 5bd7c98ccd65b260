"""Split pieces of bytes into physical lines of bounded length, so that no input can fill the memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.changes.source import DamagedData

# The largest valid change, with every character escaped, takes less than a tenth of this.
MAX_LINE_BYTES = 1024 * 1024
CUT_LINE_BYTES = 4096

TOO_LONG = "the line is longer than 1 MiB"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CutLine:
    """A line that is too long, or whose rest cannot be read.

    Args:
        start: its first bytes, at most `CUT_LINE_BYTES`.
        reason: why the rest is missing.
    """

    start: bytes
    reason: str


def lines(read: Callable[[], bytes]) -> Iterator[bytes | CutLine]:
    r"""Split the bytes at every ``\n``; line ends and a byte order mark at the start are left out.

    If the data is damaged, the last item is a `CutLine`: the line that the damage cut.

    Args:
        read: returns the next piece, shorter than `MAX_LINE_BYTES`, or nothing at the end; may raise `DamagedData`.
    """
    split = _split(read)
    for first in split:
        yield first if isinstance(first, CutLine) else first.removeprefix(BYTE_ORDER_MARK)
        break
    yield from split


def _split(read: Callable[[], bytes]) -> Iterator[bytes | CutLine]:
    pending = bytearray()  # the start of a line whose end has not come yet
    too_long = False
    try:
        while piece := read():
            first, *others = piece.split(b"\n")
            if not too_long:
                pending += first
                too_long = len(pending) > MAX_LINE_BYTES
            if others:
                yield _line(pending, too_long=too_long)
                yield from others[:-1]
                pending, too_long = bytearray(others[-1]), False
    except DamagedData as damage:
        yield CutLine(bytes(pending[:CUT_LINE_BYTES]), str(damage))
    else:
        if pending:
            yield _line(pending, too_long=too_long)


def _line(text: bytearray, *, too_long: bool) -> bytes | CutLine:
    if too_long:
        return CutLine(bytes(text[:CUT_LINE_BYTES]), TOO_LONG)
    return bytes(text)
