"""What is said about a line, or a whole file, that cannot go in."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that cannot go in.

    Args:
        source: the file as the user named it, ``<stdin>`` for standard input.
        line: where it starts, from 1; 0 for the file as a whole.
        reason: one sentence, with no metadata value in it.
        raw: the refused line or row as it was read, which may hold metadata values; empty where there is none.
        cut: `raw` is only the start of what was refused.
        header: the header line that a CSV row stands under.
    """

    source: str
    line: int
    reason: str
    raw: bytes = field(default=b"", repr=False)
    cut: bool = False
    header: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return f"{place}: {self.reason}"


class UnreadableFile(Exception):
    """The whole file cannot be used; nothing of it was taken."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
