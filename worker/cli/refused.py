"""Show refused lines on the terminal: enough to see what is wrong, and no more."""

from collections import Counter
from dataclasses import dataclass

from tqdm import tqdm

from config import sink
from worker.changes.files import Refusal

_MOST = 20
_MOST_ALIKE = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A refused line; line 0 means the whole file, and `record` is the number in a JSON file."""

    file: str
    line: int
    record: int | None
    reason: str


class Shown:
    """The refused lines that were shown, and how many were not.

    Args:
        lines: the lines that were shown.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.left_out = 0
        self._alike: Counter[str] = Counter()
        self._hints: set[str] = set()

    def add(self, refusal: Refusal) -> None:
        """Show the line, unless many were shown, or some for the same reason; show its hint once."""
        if len(self.lines) >= _MOST or self._alike[refusal.reason] >= _MOST_ALIKE:
            self.left_out += 1
            return
        self._alike[refusal.reason] += 1
        self.lines.append(Line(refusal.source, refusal.line, refusal.record, refusal.reason))
        _print(str(refusal))
        if refusal.hint and refusal.hint not in self._hints:
            self._hints.add(refusal.hint)
            _print(f"  {refusal.hint}")

    def end(self, *, has_file: bool) -> None:
        """Say how many were not shown.

        Args:
            has_file: whether all of them are in a file.
        """
        if self.left_out:
            _print(f"... and {self.left_out:,} more{'' if has_file else '; --rejects PATH writes them all to a file'}")


def _print(text: str) -> None:
    """Print above the progress line; a failure to print does not stop the work."""
    tqdm.write(text, file=sink.stream)
