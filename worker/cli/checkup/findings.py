"""What the write probe finds out about the service."""

from dataclasses import dataclass
from typing import Literal

Semantics = Literal["merge", "replace"]
OfNull = Literal["removes", "keeps", "other", "rejected", "fails", "ignored"]
OfEmpty = Literal["clears", "keeps", "other", "rejected", "fails"]


@dataclass(slots=True)
class Findings:
    """What updates do, as far as it was seen; null where it was not.

    Args:
        semantics: of a key that an update does not name: ``merge`` keeps it, ``replace`` drops it. It is what
            `METASYNC_SEMANTICS` takes.
        null_value: what null as a key's value does to the key; ``other``: it is there, with another value;
            ``ignored``: the whole update had no effect; ``fails``: the service has an error over it.
        null_metadata: what null in place of the map does.
        empty_metadata: what an empty map does.
        answer: whether the answer to an update showed the ``new`` metadata, ``old`` one, or ``none``.
        read_lag_seconds: the longest that it took until reads showed what an update had written, and nothing older.
        restored: whether what was there was put back, and seen to be there after that time.
        kept_in: the file that still holds what was there; null where it is not needed any more.
        error: what kept the probe from its end; null where nothing did.
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
