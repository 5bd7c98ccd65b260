"""Changes grouped by completion, in a temporary file, since a million would fill the memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import apsw
import msgspec

from worker.changes import MetadataChange, Mode
from worker.temporary import explained_of_sqlite, temporary_folder

_SETTINGS = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8000; -- KiB
CREATE TABLE change (completion_id TEXT NOT NULL, mode TEXT NOT NULL, metadata TEXT NOT NULL, as_of REAL);
CREATE TABLE named (change_id TEXT PRIMARY KEY, content INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE done (completion_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE again (position INTEGER PRIMARY KEY, due_at REAL NOT NULL);
BEGIN;
"""
# Completions in the order of their first change; the changes of one together, in their own order.
_EACH = """
SELECT first, completion_id, mode, metadata, as_of
FROM (SELECT rowid AS number, min(rowid) OVER (PARTITION BY completion_id) AS first, * FROM change)
{condition}
ORDER BY first, number
"""
_NOT_DONE = "WHERE completion_id NOT IN (SELECT completion_id FROM done)"
_COUNT = f"SELECT count(DISTINCT completion_id) FROM change {_NOT_DONE}"  # noqa: S608 -- constants only
_AGAIN = "JOIN again ON again.position = first"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str | None]).decode


class Entry(NamedTuple):
    """A completion and its changes, oldest first.

    Args:
        position: orders completions by their first change; has gaps.
    """

    position: int
    completion_id: str
    changes: list[MetadataChange]


class Spool:
    """Groups changes by completion; the file is deleted with the process.

    Raises:
        NoRoom: the file cannot be made.
    """

    def __init__(self) -> None:
        self._folder = temporary_folder("metasync-sync-")
        path = os.path.join(self._folder.name, "changes.db")  # noqa: PTH118 -- SQLite takes a str
        with explained_of_sqlite():
            self._rows = apsw.Connection(path)
            for _ in self._rows.execute(_SETTINGS):
                pass

    def add(self, changes: Sequence[MetadataChange]) -> list[int]:
        """Add changes, in this order; of those with the same `change_id` only the first, as a queue does.

        Returns:
            The indices of changes that differ from the first one with the same `change_id`.

        Raises:
            NoRoom: there is no room.
        """
        kept, conflicts = list[MetadataChange](), list[int]()
        with explained_of_sqlite():
            for position, change in enumerate(changes):
                content = self._content_before(change)
                if content is None:
                    kept.append(change)
                elif content != _content(change):
                    conflicts.append(position)
            rows = ((each.completion_id, each.mode, _encode(each.metadata).decode(), each.as_of) for each in kept)
            self._rows.executemany("INSERT INTO change VALUES (?, ?, ?, ?)", rows)
        return conflicts

    def add_ids(self, completion_ids: Iterable[str]) -> None:
        """Add completions without changes; raises as `add` does."""
        rows = ((each,) for each in completion_ids)
        with explained_of_sqlite():
            self._rows.executemany("INSERT INTO change VALUES (?, 'merge', '{}', NULL)", rows)

    def mark_done(self, completion_id: str) -> None:
        """Skip this completion from now on; raises as `add` does."""
        with explained_of_sqlite():
            self._rows.execute("INSERT OR IGNORE INTO done VALUES (?)", (completion_id,))

    def look_again(self, position: int, due_at: float) -> None:
        """Schedule this completion for `again`, from that time on; raises as `add` does."""
        with explained_of_sqlite():
            self._rows.execute("INSERT INTO again VALUES (?, ?)", (position, due_at))

    def count(self) -> int:
        """Return the number of completions that are not done; raises as `add` does."""
        with explained_of_sqlite():
            found: int = self._rows.execute(_COUNT).get
        return found

    def entries(self) -> Iterator[Entry]:
        """Yield each completion that is not done, once; raises as `add` does."""
        return self._entries(_NOT_DONE)

    def again(self) -> Iterator[tuple[Entry, float]]:
        """Yield each completion to read again, with the time from which on."""
        for entry in self._entries(_AGAIN):
            query = "SELECT due_at FROM again WHERE position = ?"
            due_at: float = self._rows.execute(query, (entry.position,)).get
            yield entry, due_at

    def close(self) -> None:
        self._rows.close()
        self._folder.cleanup()

    def _content_before(self, change: MetadataChange) -> int | None:
        """Return the content of the first change with this `change_id`; None if this is the first."""
        if change.change_id is None:
            return None
        self._rows.execute("INSERT OR IGNORE INTO named VALUES (?, ?)", (change.change_id, _content(change)))
        if self._rows.changes():
            return None
        before: int = self._rows.execute("SELECT content FROM named WHERE change_id = ?", (change.change_id,)).get
        return before

    def _entries(self, condition: str) -> Iterator[Entry]:
        with explained_of_sqlite():
            rows = self._rows.execute(_EACH.format(condition=condition))
            for (position, completion_id), group in groupby(rows, key=_key):
                changes = [
                    MetadataChange(completion_id, _decode(metadata), _mode(mode), as_of=as_of)
                    for _, _, mode, metadata, as_of in group
                ]
                yield Entry(position, completion_id, changes)


def _key(row: tuple[int, str, str, str, float | None]) -> tuple[int, str]:
    return row[0], row[1]


def _content(change: MetadataChange) -> int:
    """Return a hash of the change's content, valid within this process."""
    return hash((change.completion_id, change.mode, frozenset(change.metadata.items())))


def _mode(text: str) -> Mode:
    return "replace" if text == "replace" else "merge"
