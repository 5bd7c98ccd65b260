"""What the write probe finds out about the service's updates."""

from dataclasses import dataclass
from typing import Literal

Semantics = Literal["merge", "replace"]
OfNull = Literal["removes", "keeps", "other", "rejected", "fails", "ignored"]
OfEmpty = Literal["clears", "keeps", "other", "rejected", "fails"]


@dataclass(slots=True)
class Findings:
    """How updates behave; null for what was not observed.

    Args:
        semantics: whether an update keeps (``merge``) or drops (``replace``) keys that it does not name; a value of
            `METASYNC_SEMANTICS`.
        null_value: the effect of null as a key's value. ``other``: the key has another value afterwards. ``ignored``:
            the whole update had no effect. ``fails``: the service answers with an error.
        null_metadata: the effect of null instead of the map.
        empty_metadata: the effect of an empty map.
        answer: whether the answer to an update showed the ``new`` metadata, ``old`` one, or ``none``.
        read_lag_seconds: the longest time until reads showed an update, and nothing older.
        restored: whether the original metadata was restored, and seen by reads after that time.
        kept_in: the file that still holds the original metadata; null once it is not needed any more.
        error: why the probe did not finish; null if it did.
    """

    semantics: Semantics | None = None
    null_value: OfNull | None = None
    null_metadata: OfEmpty | None = None
    empty_metadata: OfEmpty | None = None
    answer: Literal["new", "old", "none"] | None = None
    read_lag_seconds: float | None = None
    restored: bool = False
    kept_in: str | None = None
    error: str | None = None
