"""Why a line, or a whole file, is refused."""

from dataclasses import dataclass, field

from worker.terminal import printable


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused line.

    Args:
        source: the file as the user named it, ``<stdin>`` for standard input.
        line: where it starts, from 1; 0 for the file as a whole.
        reason: one sentence, with no metadata value in it.
        raw: the refused line or row as it was read, which may hold metadata values; empty if the whole file is refused.
        cut: whether `raw` is only the start of it.
        header: the header line of a CSV row.
        delimiter: what separates the cells of a CSV row.
        record: its number in a JSON file, from 1; None if lines are numbered instead.
        hint: what to do, if the same helps for all such lines; it is shown once.
    """

    source: str
    line: int
    reason: str
    raw: bytes = field(default=b"", repr=False)
    cut: bool = False
    header: bytes | None = field(default=None, repr=False)
    delimiter: str = ","
    record: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        record = f"record {self.record}: " if self.record else ""
        return printable(f"{place}: {record}{self.reason}")


class UnreadableFile(Exception):
    """The whole file cannot be used; none of it was enqueued."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
