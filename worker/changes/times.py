"""Parse `as_of`, the time when a change's content was true, to Unix time."""

import re
import time
from datetime import UTC, datetime

from worker.changes.change import LATEST_AS_OF, InvalidChange, json_type
from worker.terminal import shown

# A date without dashes, a count of days, or 0 for "no time" would all be moments of 1970. A change that old would
# never be sent.
EARLIEST_AS_OF = 1e8  # March 1973
# A time in the future would block all true ones until then. Clocks differ, though.
_MOST_AHEAD_SECONDS = 86_400.0

_FORMS = "ISO 8601 with a zone, such as 2026-11-28T10:15Z, or Unix time in seconds"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?")


def as_of_from(given: object) -> float | None:
    """Parse an `as_of`.

    Args:
        given: Unix time in seconds, a number or its text; a time in ISO 8601 with its zone; a `datetime` with one; or
            None.

    Returns:
        Unix time, seconds.

    Raises:
        InvalidChange: it is none of these, or no plausible time.
    """
    match given:
        case None:
            return None
        case bool():
            raise InvalidChange(f"as_of must be a time, not {json_type(given)}: {_FORMS}")
        case datetime():
            seconds = _seconds_of(given, given.isoformat())
        case int() | float():
            seconds = given
        case str() if _NUMBER.fullmatch(given):
            seconds = float(given)
        case str():
            seconds = _seconds_of(_parsed(given), given)
        case _:
            raise InvalidChange(f"as_of must be a time, not {json_type(given)}: {_FORMS}")
    check_as_of(seconds, given)
    return float(seconds)


def check_as_of(seconds: float, given: object) -> None:
    """Raise unless the time is plausible.

    Args:
        given: the original form, for the message.

    Raises:
        InvalidChange: it is too long ago, or in the future.
    """
    if EARLIEST_AS_OF <= seconds <= time.time() + _MOST_AHEAD_SECONDS:
        return
    written = shown(str(given))
    is_count = isinstance(given, int | float) or (isinstance(given, str) and _NUMBER.fullmatch(given))
    if seconds >= LATEST_AS_OF and is_count:
        raise InvalidChange(f"as_of {written} is in milliseconds, or finer: it must be in seconds, such as 1764324900")
    if seconds > EARLIEST_AS_OF:
        raise InvalidChange(
            f"as_of {written} is in the future, by this machine's clock: it would block every older change until then"
        )
    raise InvalidChange(f"as_of {written} is no time after March 1973: it must be {_FORMS}")


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidChange(f"as_of {shown(text)} is no time: it must be {_FORMS}") from None


def _seconds_of(moment: datetime, text: str) -> float:
    """Return Unix time in seconds.

    Raises:
        InvalidChange: it has no zone. With a wrong guess an old label would silently win over a newer one.
    """
    if moment.utcoffset() is None:
        raise InvalidChange(
            f"as_of {shown(text)} has no zone: a time needs one, as in 2026-11-28T10:15Z, or 2026-11-28T10:15+01:00"
        )
    return (moment - _EPOCH).total_seconds()
