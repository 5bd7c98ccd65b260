"""Read and withdraw pending changes, as functions of a connection, each within one transaction."""

import apsw
import msgspec

from worker.queue.base import PAGE
from worker.queue.batch import PendingSelection, Withdrawn
from worker.queue.pending import QueuedChange
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

_LOOKED_AT = 2_000  # changes to examine in one transaction, even if few are selected

_PENDING = read_statements(__package__, "pending")
_SETTLE = read_statements(__package__, "settle")

_piece = msgspec.json.Decoder(tuple[int | None, int, list[int]]).decode
_places = msgspec.json.Decoder(list[tuple[int, int]]).decode
_changes = msgspec.json.Decoder(list[QueuedChange]).decode
_free = msgspec.json.Decoder(tuple[list[int], list[int]]).decode

Place = tuple[int, int]  # a target (if read by target), and a change


def read(
    connection: apsw.Connection, now: Moment, selection: PendingSelection, place: Place | None
) -> tuple[list[QueuedChange], Place | None]:
    """Return selected changes from this place on, and the next place."""
    if selection.is_everything:
        target, after = place or (0, 0)
        where = {"target": target, "after": after, "limit": PAGE}
        places = _places(connection.execute(_PENDING["every"], where).get)
        numbers = [number for _, number in places]
        following = places[-1] if len(places) == PAGE else None
    else:
        numbers, following = _selected(connection, selection, place, most=PAGE)
    found = connection.execute(_PENDING["changes"], {"numbers": json_text(numbers), "ahead": now.ahead}).get
    return _changes(found), following


def withdraw(
    connection: apsw.Connection, now: Moment, selection: PendingSelection, place: Place | None
) -> tuple[Withdrawn, Place | None]:
    """Withdraw selected changes from this place on, except those that a worker holds."""
    selected, following = _selected(connection, selection, place, most=_LOOKED_AT)
    if not selected:
        return Withdrawn(0, 0), following
    terms = {"numbers": json_text(selected), "now": now.queue}
    free, targets = _free(connection.execute(_PENDING["free"], terms).get)
    if free:
        gone = {"numbers": json_text(free), "targets": json_text(targets), "now": now.queue}
        for statement in ("count_in_batches", "count_in_targets"):
            connection.execute(_PENDING[statement], gone)
        connection.execute(_SETTLE["remove"], gone)
        connection.execute(_PENDING["finish"], gone)
        connection.execute(_SETTLE["calm"], gone)
        counts = {"minute": int(now.unix // 60), "applied": 0, "unchanged": 0, "dead": 0, "superseded": 0}
        connection.execute(_SETTLE["count"], {**counts, "withdrawn": len(free)})
    return Withdrawn(len(free), len(selected) - len(free)), following


def _selected(
    connection: apsw.Connection, selection: PendingSelection, place: Place | None, *, most: int
) -> tuple[list[int], Place | None]:
    """Return the numbers of selected changes from this place on, and the next place, if any."""
    conditions = {
        "batch": storable(selection.batch),
        "completion_id": storable(selection.completion_id),
        "change_id": storable(selection.change_id),
        "after": place[1] if place else 0,
        "limit": _LOOKED_AT,
    }
    last, looked_at, numbers = _piece(connection.execute(_PENDING[f"by_{_index(selection)}"], conditions).get)
    if len(numbers) > most:
        return numbers[:most], (0, numbers[most - 1])
    return numbers, (0, last) if last is not None and looked_at == _LOOKED_AT else None


def _index(selection: PendingSelection) -> str:
    """Return the index to use."""
    if selection.change_id is not None:
        return "change_id"
    return "batch" if selection.completion_id is None else "completion"
