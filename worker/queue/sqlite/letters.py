"""Operations on dead letters, as functions of a connection, each within one transaction."""

from collections.abc import Sequence

import apsw
import msgspec

from worker.queue.base import PAGE, Part, Stretch
from worker.queue.letters import LONGEST_AGO_SECONDS, MOST_NUMBERS_TOLD, DeadLetter, LetterCount, Revived
from worker.queue.sqlite import batches, remembered
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

BULK = 1_000  # dead letters to retry or purge in one transaction: of the largest, 10,000 took more than ten seconds

_DEAD = read_statements(__package__, "dead")
_PUT = read_statements(__package__, "put")

_numbers = msgspec.json.Decoder(list[int]).decode
_counts = msgspec.json.Decoder(dict[str, LetterCount]).decode
_dated = msgspec.json.Decoder(list[tuple[int, str, str | None, float | None]]).decode
_letters = msgspec.json.Decoder(list[DeadLetter]).decode


def read(connection: apsw.Connection, now: Moment, stretch: Stretch) -> Part[list[DeadLetter]]:
    """Return the first letters of the stretch."""
    numbers, last = _selected(connection, now, stretch, PAGE)
    letters = _letters(connection.execute(_DEAD["letters"], {"numbers": json_text(numbers)}).get)
    return Part(letters, last, _newest(connection))


def retry(connection: apsw.Connection, now: Moment, stretch: Stretch) -> Part[Revived]:
    """Make the first letters of the stretch pending again, except those that must stay dead; see `Revived`."""
    newest, (numbers, last) = _newest(connection), _selected(connection, now, stretch, BULK)
    newest_change = connection.execute(_PUT["newest"]).get
    superseded, settled = _out_of_date(connection, numbers)
    candidates = set(numbers).difference(superseded, settled)
    revivable = connection.execute(_DEAD["revivable"], {"numbers": json_text(sorted(candidates))}).get
    revived = {"numbers": revivable, "now": now.queue, "newest": newest_change, "urgent": False}
    connection.execute(_DEAD["open"], revived)
    batches.open_again(connection, revived)
    connection.execute(_DEAD["revive"], revived)
    connection.execute(_PUT["count"], revived)
    batches.revive(connection, revived)
    connection.execute(_DEAD["delete"], revived)
    retried = connection.changes()
    kept = len(numbers) - retried - len(superseded)
    return Part(Revived(retried, kept, len(superseded), tuple(superseded[:MOST_NUMBERS_TOLD])), last, newest)


def _out_of_date(connection: apsw.Connection, numbers: Sequence[int]) -> tuple[list[int], set[int]]:
    """Return the letters with a newer applied as_of, and the others whose change_id was settled."""
    if not remembered.holds_anything(connection):
        return [], set()
    dated = _dated(connection.execute(_DEAD["dated"], {"numbers": json_text(numbers)}).get)
    newest = remembered.newest(connection, list({completion_id for _, completion_id, _, as_of in dated if as_of}))
    superseded = [
        number
        for number, completion_id, _, as_of in dated
        if as_of is not None and as_of < newest.get(completion_id, 0.0)
    ]
    settled = remembered.settled(connection, [change_id for _, _, change_id, _ in dated])
    return superseded, {dated[position][0] for position in settled}.difference(superseded)


def purge(connection: apsw.Connection, now: Moment, stretch: Stretch) -> Part[int]:
    """Delete the first letters of the stretch."""
    newest, (numbers, last) = _newest(connection), _selected(connection, now, stretch, BULK)
    connection.execute(_DEAD["delete"], {"numbers": json_text(numbers)})
    return Part(connection.changes(), last, newest)


def reasons(connection: apsw.Connection, until: int) -> dict[str, LetterCount]:
    """Count the letters by reason, up to this number."""
    return _counts(connection.execute(_DEAD["reasons"], {"until": until}).get)


def _newest(connection: apsw.Connection) -> int:
    number: int = connection.execute(_DEAD["newest"]).get
    return number


def _selected(connection: apsw.Connection, now: Moment, stretch: Stretch, usual: int) -> tuple[list[int], int | None]:
    """Return the numbers of matching letters, and of the last examined one (None if there are no more)."""
    selection, limit = stretch.selection, stretch.limit(usual)
    conditions = {
        "numbers": None if selection.numbers is None else json_text(list(selection.numbers)),
        "completion_id": storable(selection.completion_id),
        "reason": storable(selection.reason),
        "batch": storable(selection.batch),
        "after": stretch.after,
        "until": stretch.until,
        "limit": limit,
    }
    numbers = _numbers(connection.execute(_DEAD[f"by_{selection.index}"], conditions).get)
    last = numbers[-1] if len(numbers) == limit else None
    if selection.ages is None and selection.batch is None:
        return numbers, last
    # Examine a bounded number, so that the transaction is short even if few match.
    shortest, longest = selection.ages or (-LONGEST_AGO_SECONDS, LONGEST_AGO_SECONDS)
    bounds = {"numbers": json_text(numbers), "from": now.unix - longest, "until": now.unix - shortest}
    return _numbers(connection.execute(_DEAD["matching"], conditions | bounds).get), last
