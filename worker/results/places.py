"""Where the changes of a run were read: file and line, found again by what a change says.

A store gives a change its number and knows nothing of files. So what is kept is a fingerprint of each line: 16 bytes
for one, a million lines in 16 MB.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from worker.changes import MetadataChange

Nowhere = tuple[None, None]


def fingerprint(completion_id: str, change_id: str | None, mode: str, metadata: Mapping[str, str | None]) -> int:
    """Tell changes apart by what they say, within this process; two out of a billion may look alike."""
    return hash((completion_id, change_id, mode, frozenset(metadata.items())))


class Places:
    """Knows the file and the line of what was read in this run.

    Of lines that say the same, the first belongs to the change that ends first, and so on; changes beyond those, which
    were pending before, get the last.
    """

    def __init__(self) -> None:
        self._fingerprints = array("q")
        self._lines = array("q")
        self._files: list[tuple[int, str]] = []  # the position of the first change of each, and its name
        self._order: array[int] | None = None  # positions, by fingerprint and then as they were read
        self._sorted = array("q")
        self._met: dict[int, dict[int, int]] = {}  # of lines that say the same: which one each number has

    def __repr__(self) -> str:
        return f"<Places [{len(self._lines):,} changes of {len(self._files)} files]>"

    def add_all(self, changes: Sequence[MetadataChange], read_at: Sequence[tuple[str, int]]) -> None:
        """Keep where these changes were read: file and line of each."""
        for change, (file, line) in zip(changes, read_at, strict=True):
            self.add(fingerprint(change.completion_id, change.change_id, change.mode, change.metadata), file, line)

    def add(self, found: int, file: str, line: int) -> None:
        """Keep where the change of this fingerprint was read."""
        if not self._files or self._files[-1][1] != file:
            self._files.append((len(self._lines), file))
        self._fingerprints.append(found)
        self._lines.append(line)
        self._order = None

    def of(self, number: int, found: int) -> tuple[str, int] | Nowhere:
        """Tell where the change of this number and fingerprint was read, as far as that is known."""
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
