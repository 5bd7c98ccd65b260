"""What people do to dead letters, as functions of a connection: each within one transaction."""

import apsw
import msgspec

from worker.queue.base import Part, Stretch
from worker.queue.letters import DeadLetter, LetterCount, Revived
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

PAGE = 500  # dead letters that are read at once
BULK = 10_000  # dead letters that are retried or purged in one transaction

_DEAD = read_statements(__package__, "dead")
_PUT = read_statements(__package__, "put")

_numbers = msgspec.json.Decoder(list[int]).decode
_counts = msgspec.json.Decoder(dict[str, LetterCount]).decode
_letters = msgspec.json.Decoder(list[DeadLetter]).decode


def read(connection: apsw.Connection, now: Moment, stretch: Stretch) -> Part[list[DeadLetter]]:
    """Give the first letters of the stretch."""
    numbers, last = _selected(connection, now, stretch, PAGE)
    letters = _letters(connection.execute(_DEAD["letters"], {"numbers": json_text(numbers)}).get)
    return Part(letters, last, _newest(connection))


def retry(connection: apsw.Connection, now: Moment, stretch: Stretch) -> Part[Revived]:
    """Make the first letters of the stretch changes again, but for those whose change_id is pending."""
    newest, (numbers, last) = _newest(connection), _selected(connection, now, stretch, BULK)
    newest_change = connection.execute(_PUT["newest"]).get
    revivable = connection.execute(_DEAD["revivable"], {"numbers": json_text(numbers)}).get
    connection.execute(_DEAD["open"], {"numbers": revivable, "now": now.queue})
    connection.execute(_DEAD["revive"], {"numbers": revivable, "now": now.queue})
    connection.execute(_PUT["count"], {"newest": newest_change})
    connection.execute(_DEAD["delete"], {"numbers": revivable})
    retried = connection.changes()
    return Part(Revived(retried, len(numbers) - retried), last, newest)


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
    """Give the numbers of the letters that match, and of the last that was looked at unless there are no more."""
    selection, limit = stretch.selection, stretch.limit(usual)
    conditions = {
        "numbers": None if selection.numbers is None else json_text(list(selection.numbers)),
        "completion_id": storable(selection.completion_id),
        "reason": storable(selection.reason),
        "after": stretch.after,
        "until": stretch.until,
        "limit": limit,
    }
    numbers = _numbers(connection.execute(_DEAD[f"by_{selection.index}"], conditions).get)
    last = numbers[-1] if len(numbers) == limit else None
    if selection.ages is None:
        return numbers, last
    # Of so many, and no more: however few are of that age, a transaction is short.
    shortest, longest = selection.ages
    bounds = {"numbers": json_text(numbers), "from": now.unix - longest, "until": now.unix - shortest}
    return _numbers(connection.execute(_DEAD["of_age"], bounds).get), last
