"""The log of confirmed maps, as functions of a connection, called within the queue's transactions."""

from collections.abc import Iterable, Sequence

import apsw
import msgspec

from worker.queue import confirmed
from worker.queue.confirmed import LogIndex, LogRow
from worker.queue.pending import Claim, Settlement
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import json_text

_CONFIRMED = read_statements(__package__, "confirmed")

_news = msgspec.json.Decoder(list[LogRow]).decode
_rows = msgspec.json.Decoder(list[tuple[int, list[str], msgspec.Raw]]).decode


def append(connection: apsw.Connection, now: float, settlements: Iterable[Settlement], keep_seconds: float) -> bool:
    """Append the settlements' maps and delete old rows; return whether one was deleted early."""
    maps = confirmed.confirmed_by(settlements)
    if not maps:
        return False
    completion_ids, texts = confirmed.texts_of(maps)
    row = {"now": now, "updates": len(maps), "completion_ids": completion_ids, "maps": texts}
    total, oldest_at, oldest_total = connection.execute(_CONFIRMED["append"], row).get
    last = {"since": now - keep_seconds, "total": total - confirmed.MAX_UPDATES}
    if oldest_at > last["since"] and oldest_total > last["total"]:
        return False
    gone = connection.execute(_CONFIRMED["forget"], last)
    return any(is_early for (is_early,) in gone.fetchall())


def forget(connection: apsw.Connection, now: Moment, older_than_seconds: float, most: int) -> bool:
    """Delete the first old maps; return whether the newest is one of them, so that no younger map is left."""
    since = now.queue - older_than_seconds
    connection.execute(_CONFIRMED["expire"], {"since": since, "limit": most})
    return bool(connection.execute(_CONFIRMED["empty"], {"since": since}).fetchall())


def attach(
    connection: apsw.Connection, claims: Sequence[Claim], index: LogIndex, *, now: float, seconds: float
) -> tuple[list[Claim], list[LogRow]]:
    """Return the claims with confirmed maps, and the rows that the index must learn after the commit."""
    completion_ids = confirmed.merged_first(claims)
    if not completion_ids:
        return list(claims), []
    news = _news(connection.execute(_CONFIRMED["news"], {"last": index.last, "since": now - index.seconds}).get)
    wanted = index.find(completion_ids, news, since=now - seconds)
    maps: dict[str, dict[str, str]] = {}
    left = list(wanted)
    while left:
        terms = {"numbers": json_text(left), "bytes": confirmed.BYTES_AT_ONCE}
        rows = _rows(connection.execute(_CONFIRMED["rows"], terms).get)
        for number, ids, texts in rows:
            maps.update(confirmed.maps_in(ids, texts, wanted[number]))
        left = confirmed.after([number for number, _, _ in rows], left)
    return confirmed.with_confirmed(claims, maps), news
