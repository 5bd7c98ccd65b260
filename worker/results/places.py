"""Remember the file and line of each change of a run, and find them again by the change's content.

A store numbers changes and knows nothing of files. So a fingerprint of each line is kept: 16 bytes per line, 16 MB for
a million.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from worker.changes import MetadataChange

Nowhere = tuple[None, None]


def fingerprint(completion_id: str, change_id: str | None, mode: str, metadata: Mapping[str, str | None]) -> int:
    """Return a hash of the change's content, valid within this process; collisions are rare."""
    return hash((completion_id, change_id, mode, frozenset(metadata.items())))


class Places:
    """Maps changes of this run to file and line.

    Equal lines are given to their changes in the order in which these end. Further equal changes, which were pending
    before the run, get the last one.
    """

    def __init__(self) -> None:
        self._fingerprints = array("q")
        self._lines = array("q")
        self._files: list[tuple[int, str]] = []  # each file's first position, and its name
        self._order: array[int] | None = None  # positions, by fingerprint and then as they were read
        self._sorted = array("q")
        self._met: dict[int, dict[int, int]] = {}  # for equal lines: by fingerprint and number, which one

    def __repr__(self) -> str:
        return f"<Places [{len(self._lines):,} changes of {len(self._files)} files]>"

    def add_all(self, changes: Sequence[MetadataChange], read_at: Sequence[tuple[str, int]]) -> None:
        """Add changes with the file and line of each."""
        for change, (file, line) in zip(changes, read_at, strict=True):
            self.add(fingerprint(change.completion_id, change.change_id, change.mode, change.metadata), file, line)

    def add(self, found: int, file: str, line: int) -> None:
        """Add the place of the change with this fingerprint."""
        if not self._files or self._files[-1][1] != file:
            self._files.append((len(self._lines), file))
        self._fingerprints.append(found)
        self._lines.append(line)
        self._order = None

    def of(self, number: int, found: int) -> tuple[str, int] | Nowhere:
        """Return file and line of the change with this number and fingerprint; None for both if not known."""
        if self._order is None:
            self._sort()
        assert self._order is not None  # noqa: S101 -- sorted just now
        first, end = bisect_left(self._sorted, found), bisect_right(self._sorted, found)
        if first == end:
            return None, None
        if end - first > 1:
            met = self._met.setdefault(found, {})
            if len(met) < end - first:
                met.setdefault(number, len(met))
            first += met.get(number, end - first - 1)
        position = self._order[first]
        file = bisect_right(self._files, position, key=lambda each: each[0]) - 1
        return self._files[file][1], self._lines[position]

    def _sort(self) -> None:
        fingerprints = self._fingerprints
        self._order = array("q", sorted(range(len(fingerprints)), key=fingerprints.__getitem__))
        self._sorted = array("q", map(fingerprints.__getitem__, self._order))
