"""The log of confirmed metadata, as functions of a connection, each within a transaction of the queue's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from worker.queue import confirmed
from worker.queue.confirmed import LogIndex, LogRow
from worker.queue.pending import Claim, Settlement
from worker.queue.postgres.connections import Connection
from worker.queue.statements import read_statements

# A row gets its number before it becomes visible. At most so many settlements are under way at once.
_UNDER_WAY = 256
# A settlement under way may fill a gap so far back.
_LOOK_BACK = 1_000

_CONFIRMED = read_statements(__package__, "confirmed")

_completion_ids = msgspec.json.Decoder(list[str]).decode


class LogIndexWithGaps(LogIndex):
    """An index that knows the skipped numbers, whose transactions may still commit."""

    __slots__ = ("_skipped",)

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self._skipped: dict[int, float] = {}  # by number: when the row was written that showed the gap

    @property
    def skipped(self) -> list[int]:
        """Numbers below the last one that were still missing."""
        return list(self._skipped)

    def is_of(self, rows: Iterable[LogRow], *, now: float) -> bool:
        """Whether these are rows of the known log, the last known one included, if that is young enough to matter.

        After a failover or a restore, numbers stand for other rows. A proxy hides it, and connections may stay open.
        """
        written_at, _ = self._rows.get(self.last, (0.0, []))
        return written_at <= now - self.seconds or (self.last, written_at) in {
            (row.number, row.written_at) for row in rows
        }

    def clear(self) -> None:
        """Forget all, to read another log."""
        super().__init__(self.seconds)
        self._skipped = {}

    def learn(self, news: Iterable[LogRow], *, now: float) -> None:
        """Take in these rows, and note the skipped numbers until their rows would be too old."""
        rows = {row.number: row for row in news}
        if rows:
            newest = max(rows)
            for number in range(max(self.last, newest - _UNDER_WAY) + 1, newest):
                self._skipped[number] = rows[newest].written_at
        self._skipped = {
            number: written_at
            for number, written_at in self._skipped.items()
            if number not in rows and written_at > now - self.seconds
        }
        super().learn(rows.values(), now=now)


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of an append.

    Args:
        look_from: the number from which the next call looks for old rows.
        is_cut_short: whether a row was deleted before its time.
    """

    look_from: int
    is_cut_short: bool = False


async def append(
    connection: Connection, settlements: Iterable[Settlement], *, keep_seconds: float, look_from: int
) -> Appended:
    """Log the metadata that the settlements confirm, and delete old rows.

    Args:
        look_from: below this number are only deleted rows that no vacuum has removed yet.
    """
    maps = confirmed.confirmed_by(settlements)
    if not maps:
        return Appended(look_from)
    texts = confirmed.texts_of(maps)
    limits = keep_seconds, confirmed.MAX_UPDATES, look_from
    [found] = await connection.fetch(_CONFIRMED["append"], *texts, len(maps), *limits)
    oldest: int | None = found["oldest"]
    return Appended(look_from if oldest is None else max(0, oldest - _LOOK_BACK), found["is_cut_short"])


async def attach(
    connection: Connection, claims: Sequence[Claim], index: LogIndexWithGaps, *, now: float, seconds: float
) -> tuple[list[Claim], list[LogRow]]:
    """Return the claims with the confirmed metadata, and the rows that the index learns after the commit."""
    completion_ids = confirmed.merged_first(claims)
    if not completion_ids:
        return list(claims), []
    news = await _news(connection, index)
    if not index.is_of(news, now=now):
        index.clear()
        news = await _news(connection, index)
    wanted = index.find(completion_ids, news, since=now - seconds)
    maps: dict[str, dict[str, str]] = {}
    left = list(wanted)
    while left:
        rows = await connection.fetch(_CONFIRMED["rows"], left, confirmed.BYTES_AT_ONCE)
        for row in rows:
            maps.update(confirmed.maps_in(_completion_ids(row["completion_ids"]), row["maps"], wanted[row["number"]]))
        left = confirmed.after([row["number"] for row in rows], left)
    return confirmed.with_confirmed(claims, maps), news


async def _news(connection: Connection, index: LogIndexWithGaps) -> list[LogRow]:
    found = await connection.fetch(_CONFIRMED["news"], index.last, index.skipped, index.seconds)
    return [LogRow(row["number"], row["written_at"], _completion_ids(row["completion_ids"])) for row in found]


async def forget(connection: Connection, older_than_seconds: float, most: int) -> None:
    """Delete the old ones among the first rows."""
    await connection.execute(_CONFIRMED["expire"], older_than_seconds, most)
