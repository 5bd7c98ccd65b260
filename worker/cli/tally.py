"""Count changes instead of storing them, for `metasync enqueue --check`."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import cast

import apsw
import msgspec

from worker.changes import MetadataChange
from worker.cli.intake import Spread
from worker.queue import Stored
from worker.temporary import explained_of_sqlite, temporary_folder

_SETTINGS = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8000; -- KiB
CREATE TABLE completion (id TEXT PRIMARY KEY, changes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pending (change_id TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
"""
_COUNT = """
INSERT INTO completion VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET changes = changes + excluded.changes
"""
_SPREAD = "SELECT count(*), coalesce(max(changes), 0) FROM completion"


class Tally:
    """Accepts changes as an empty queue would, but keeps only their ids, in a temporary file.

    Raises:
        NoRoom: the file cannot be made.
    """

    def __init__(self) -> None:
        self._folder = temporary_folder("metasync-check-")
        self._added = 0
        with explained_of_sqlite():
            self._ids = apsw.Connection(f"{self._folder.name}/ids.db")
            for _ in self._ids.execute(_SETTINGS):
                pass

    async def put(self, changes: Sequence[MetadataChange], **_terms: object) -> Stored:
        """Count the changes; see `Queue.put`.

        Raises:
            NoRoom: there is no room for them.
        """
        conflicts = []
        per_completion: Counter[str] = Counter()
        with explained_of_sqlite(), self._ids:
            for position, change in enumerate(changes):
                is_new, is_same = self._known(change)
                if is_new:
                    per_completion[change.completion_id] += 1
                elif not is_same:
                    conflicts.append(position)
            self._ids.executemany(_COUNT, per_completion.items())
        added = per_completion.total()
        self._added += added
        duplicates = len(changes) - added - len(conflicts)
        return Stored(added, duplicates, tuple(conflicts), {None: duplicates} if duplicates else {})

    async def conflicts(self, _changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """Return no conflict: nothing is pending."""
        return ()

    def spread(self) -> Spread:
        """Return how the changes are distributed over completions."""
        found = cast("list[tuple[int, int]]", self._ids.execute(_SPREAD).fetchall())
        [(completions, most)] = found
        return Spread(completions, round(self._added / completions, 3) if completions else 0.0, most)

    def close(self) -> None:
        self._ids.close()
        self._folder.cleanup()

    def _known(self, change: MetadataChange) -> tuple[bool, bool]:
        """Return whether the change is new and, if not, whether it equals the earlier one."""
        if change.change_id is None:
            return True, False
        fields = (change.completion_id, change.mode, sorted(change.metadata.items()))
        content = hashlib.blake2b(msgspec.msgpack.encode(fields), digest_size=16).digest()
        if self._ids.execute(
            "INSERT OR IGNORE INTO pending VALUES (?, ?) RETURNING 1", (change.change_id, content)
        ).fetchall():
            return True, False
        [(before,)] = self._ids.execute(
            "SELECT content FROM pending WHERE change_id = ?", (change.change_id,)
        ).fetchall()
        return False, before == content
