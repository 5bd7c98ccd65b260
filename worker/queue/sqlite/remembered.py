"""Records of finished changes, as functions of a connection, called within a transaction.

Rows are keyed by a hash, so each row is on another page, and every further row or index costs a page write. So a row
stores only its generation, and there is no index of times. An expired generation is deleted in one pass over all rows
in the order of their hashes, so that each written page loses many rows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import apsw
import msgspec

from worker.queue.batch import MAX_REMEMBERED
from worker.queue.pending import Claim, Settlement
from worker.queue.rows import dated, remembered_of, with_newest
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import hash_of, json_text

_GENERATIONS = 16  # at least, of as many rows
_GENERATION_SECONDS = 3_600.0
_LOOKED_AT = 20_000  # rows to examine in one transaction

_REMEMBERED = read_statements(__package__, "remembered")

Kind = Literal["settled", "newest"]
KINDS: tuple[Kind, ...] = ("settled", "newest")

_positions = msgspec.json.Decoder(set[int]).decode
_newest = msgspec.json.Decoder(list[tuple[int, float]]).decode
_old = msgspec.json.Decoder(tuple[int | None, int, list[int]]).decode


def place_of(change_id: str) -> int:
    """Return a 63-bit key for it: a hash, followed by the last character unhashed.

    Producers count up: ids that differ only in the last character get adjacent rows, so that a written page has ten of
    them. Measured with five million rows: 4 microseconds an update instead of 27. The other 56 bits make collisions
    unlikely: one in a hundred billion puts meets a foreign key among five million.
    """
    before, last = change_id[:-1], change_id[-1]
    return hash_of(before) & ~0x7F | ord(last) if last.isascii() else hash_of(change_id)


def keep(connection: apsw.Connection, now: Moment, settlements: Collection[Settlement]) -> None:
    """Remember the change_ids and the newest as_of of these settlements."""
    remembered = remembered_of(settlements)
    if remembered.change_ids:
        hashes = sorted(map(place_of, remembered.change_ids))
        generation = _generation(connection, now, "settled", added=len(hashes))
        connection.execute(_REMEMBERED["keep_settled"], {"hashes": json_text(hashes), "generation": generation})
    if remembered.as_of:
        known = {each.claim.completion_id for each in settlements if each.claim.newest_as_of is not None}
        newest = sorted((hash_of(completion_id), as_of) for completion_id, as_of in remembered.as_of.items())
        generation = _generation(connection, now, "newest", added=len(remembered.as_of.keys() - known))
        connection.execute(_REMEMBERED["keep_newest"], {"newest": json_text(newest), "generation": generation})


def _generation(connection: apsw.Connection, now: Moment, kind: Kind, *, added: int) -> int:
    """Return the current generation for so many new rows."""
    number, began_at, size, is_going = connection.execute(_REMEMBERED["current"], {"kind": kind}).fetchone() or (
        0,
        0.0,
        0,
        True,
    )
    if is_going or size >= MAX_REMEMBERED // _GENERATIONS or now.queue - began_at > _GENERATION_SECONDS:
        number += 1
        connection.execute(_REMEMBERED["begin"], {"kind": kind, "number": number, "now": now.queue})
    row = {"kind": kind, "number": number, "added": added, "now": now.queue}
    connection.execute(_REMEMBERED["grow"], row)
    return number


def settled(connection: apsw.Connection, change_ids: Sequence[str | None]) -> set[int]:
    """Return the positions of the remembered ones; without ids, no statement runs."""
    hashes = [None if each is None else place_of(each) for each in change_ids]
    if hashes.count(None) == len(hashes):
        return set()
    return _positions(connection.execute(_REMEMBERED["settled"], {"hashes": json_text(hashes)}).get)


def newest(connection: apsw.Connection, completion_ids: Sequence[str]) -> dict[str, float]:
    """Return the remembered newest as_of of the completions."""
    if not completion_ids:
        return {}
    hashes = json_text([hash_of(each) for each in completion_ids])
    found = _newest(connection.execute(_REMEMBERED["newest"], {"hashes": hashes}).get)
    return {completion_ids[position]: as_of for position, as_of in found}


def attach(connection: apsw.Connection, claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims with the newest as_of of their completions."""
    return with_newest(claims, newest(connection, dated(claims)))


def holds_anything(connection: apsw.Connection) -> bool:
    """Whether anything is remembered."""
    return bool(connection.execute(_REMEMBERED["anything"]).get)


def forget(
    connection: apsw.Connection, now: Moment, kind: Kind, older_than_seconds: float, most: int
) -> tuple[int, bool]:
    """Delete some expired or surplus rows; return how many, and whether that was all for now."""
    terms: Mapping[str, object] = {
        "kind": kind,
        "since": now.queue - older_than_seconds,
        "most_kept": MAX_REMEMBERED,
        "limit": _LOOKED_AT,
    }
    generation = connection.execute(_REMEMBERED["expired"], terms).get
    if generation is None:
        return 0, True
    stretch = {**terms, "generation": generation}
    after = connection.execute(_REMEMBERED["swept"], stretch).get
    last, looked_at, old = _old(connection.execute(_REMEMBERED[f"old_{kind}"], {**stretch, "after": after}).get)
    if len(old) > most:
        old, last = old[:most], old[most - 1]
    elif looked_at < _LOOKED_AT:
        last = None
    until = last if last is not None else old[-1] if old else after
    if old:
        connection.execute(_REMEMBERED[f"forget_{kind}"], {**stretch, "after": after, "until": until})
    connection.execute(_REMEMBERED["sweep"], {**stretch, "swept": until, "gone": len(old)})
    if last is None:
        connection.execute(_REMEMBERED["hand_on"], stretch)
        connection.execute(_REMEMBERED["end"], stretch)
    return len(old), False
