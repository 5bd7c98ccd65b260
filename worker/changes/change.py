"""A change to the metadata of one stored completion, and the rules that it must follow."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import msgspec

from worker.terminal import shown

Mode = Literal["merge", "replace"]
MODES: tuple[Mode, ...] = get_args(Mode)

# OpenAI's published specification, schema `Metadata`: sixteen pairs, keys of up to 64 characters, values of up to 512.
# It does not say whether it counts code points or bytes. We count code points, the more permissive reading.
MAX_PAIRS = 16
MAX_KEY_LENGTH = 64
MAX_VALUE_LENGTH = 512
MAX_CHANGE_ID_LENGTH = 256
LATEST_AS_OF = 1e10  # Unix time, seconds: a larger number is in milliseconds, or no time

# What programs write for a missing id; and the field's own name, which joined files with header rows contain. Each id
# is compared with all of them: the fewer alternatives, the faster.
_NO_VALUE = re.compile(r"n(?:a|an|at|ull|il|one)|undefined", re.IGNORECASE)
_OWN_NAME = re.compile(r"completion[_-]*id", re.IGNORECASE)
# Only unreserved characters (RFC 3986, 2.3), and no dot first: such an id needs no quoting in a URL and cannot change
# the URL's path.
COMPLETION_ID = re.compile(rf"(?!(?i:{_NO_VALUE.pattern}|{_OWN_NAME.pattern})\Z)[A-Za-z0-9][A-Za-z0-9._-]{{0,255}}")
_VARIED = re.compile("[\\s_\ufeff\u200b\u200c\u200d\u2060-]+")
# PostgreSQL stores no NUL, and a lone surrogate has no UTF-8 form.
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")


_set = msgspec.structs.force_setattr


class InvalidChange(ValueError):
    """The change breaks a rule. The message says which, and contains no metadata value.

    Args:
        hint: what a user who enqueues files can do about it; may be empty.

    `taken` is the number of changes that `put` had stored, or found pending, in earlier batches of its iterable.
    """

    taken: int = 0

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class MetadataChange(msgspec.Struct, frozen=True):  # much faster to make than a frozen dataclass
    """A change to the metadata of one completion.

    Args:
        completion_id: the stored completion, such as ``chatcmpl-9x``: a letter or digit, then up to 255 of
            letters, digits, ``.``, ``_`` and ``-``.
        metadata: the pairs to set. In ``merge``, None removes the key (JSON Merge Patch, RFC 7396).
        mode: ``merge`` keeps the keys that are not named; ``replace`` sets exactly this map.
        change_id: the producer's idempotency key: while a change with it is pending, and for some time after it was
            applied, a second one with the same key is not stored.
        as_of: when the change's content was true, Unix time in seconds. The change is not sent once a change of the
            same completion with a newer `as_of` has been applied. None (the default) takes no part in this order.

    Raises:
        InvalidChange: a value has the wrong type, size or characters.
    """

    completion_id: str
    metadata: Mapping[str, str | None]
    mode: Mode = "merge"
    change_id: str | None = None
    as_of: float | None = None

    def __post_init__(self) -> None:
        # What nearly all changes are is found without a further call.
        completion_id, metadata = self.completion_id, self.metadata
        if type(completion_id) is not str or not COMPLETION_ID.fullmatch(completion_id):
            _check_completion_id(completion_id)
        if self.mode not in MODES:
            _refuse_mode(self.mode)
        if type(metadata) is not dict or not _is_plain(metadata):
            _check_metadata(metadata, self.mode)
        # Copy the map, so that the caller cannot alter it later.
        _set(self, "metadata", dict(metadata))
        if self.change_id is not None:
            _check_change_id(self.change_id)
        if self.as_of is not None:
            _check_as_of(self.as_of)


def _check_completion_id(completion_id: object) -> None:
    if not isinstance(completion_id, str):
        raise InvalidChange(f"completion_id must be a string, not {json_type(completion_id)}")
    if COMPLETION_ID.fullmatch(completion_id):
        return
    if _NO_VALUE.fullmatch(completion_id):
        raise InvalidChange(f"completion_id {shown(completion_id)} stands for no value: the id is missing")
    if _OWN_NAME.fullmatch(completion_id):
        raise InvalidChange(f"completion_id {shown(completion_id)} is the field's name: a header row among the changes")
    raise InvalidChange(
        f"completion_id {shown(completion_id)} is not one: a letter or digit, "
        "then up to 255 of letters, digits, '.', '_' and '-'"
    )


def _refuse_mode(mode: object) -> None:
    if not isinstance(mode, str):
        raise InvalidChange(f"mode must be a string, not {json_type(mode)}")
    raise InvalidChange(f"mode must be one of {', '.join(MODES)}, not {shown(mode)}")


def check_key(key: object) -> None:
    """Raise `InvalidChange` unless this can be the key of a metadata pair."""
    if not isinstance(key, str):
        raise InvalidChange(f"metadata keys must be strings, not {json_type(key)}")
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidChange(f"metadata key {shown(key)} has {len(key)} characters, more than {MAX_KEY_LENGTH}")
    if _is_unsendable(key):
        raise InvalidChange(f"metadata key {shown(key)} holds a NUL or half a surrogate pair")


def _check_metadata(metadata: object, mode: Mode) -> None:
    if not isinstance(metadata, Mapping):
        raise InvalidChange(f"metadata must be an object of strings, not {json_type(metadata)}")
    pairs = 0
    for key, value in metadata.items():
        check_key(key)
        if value is None:
            if mode == "replace":
                raise InvalidChange(f"metadata key {shown(key)} is null, which has no meaning in mode replace")
            continue
        pairs += 1
        if not isinstance(value, str):
            raise InvalidChange(f"the value of metadata key {shown(key)} must be a string, not {json_type(value)}")
        if len(value) > MAX_VALUE_LENGTH:
            raise InvalidChange(
                f"the value of metadata key {shown(key)} has {len(value)} characters, more than {MAX_VALUE_LENGTH}"
            )
        if _is_unsendable(value):
            raise InvalidChange(f"the value of metadata key {shown(key)} holds a NUL or half a surrogate pair")
    if pairs > MAX_PAIRS:
        raise InvalidChange(f"metadata sets {pairs} keys, more than {MAX_PAIRS}")


def _is_plain(metadata: Mapping[str, object]) -> bool:
    """Whether it is what nearly all is: a few pairs of short printable text, which breaks no rule."""
    values = metadata.values()
    try:
        text = "".join([*metadata, *values])  # type: ignore[list-item] # whether all are strings is asked here
    except TypeError:
        return False
    return (
        text.isprintable()
        and len(metadata) <= MAX_PAIRS
        and (len(text) <= MAX_KEY_LENGTH or _longest(metadata) <= MAX_KEY_LENGTH)
        and (len(text) <= MAX_VALUE_LENGTH or _longest(values) <= MAX_VALUE_LENGTH)
    )


def _longest(texts: Iterable[Any]) -> int:
    return max(map(len, texts), default=0)


def _check_change_id(change_id: object) -> None:
    if not isinstance(change_id, str):
        raise InvalidChange(f"change_id must be a string, not {json_type(change_id)}")
    if not 0 < len(change_id) <= MAX_CHANGE_ID_LENGTH:
        raise InvalidChange(f"change_id must have 1 to {MAX_CHANGE_ID_LENGTH} characters, not {len(change_id)}")
    if _is_unsendable(change_id):
        raise InvalidChange("change_id holds a NUL or half a surrogate pair")
    # All changes with such an id would be one change: once it is applied, the others are known already.
    if _NO_VALUE.fullmatch(change_id):
        raise InvalidChange(f"change_id {shown(change_id)} stands for no value: leave it out")


def _check_as_of(as_of: object) -> None:
    if isinstance(as_of, bool) or not isinstance(as_of, int | float):
        raise InvalidChange(f"as_of must be Unix time in seconds, not {json_type(as_of)}")
    if not 0 <= as_of < LATEST_AS_OF:  # false for NaN, too
        raise InvalidChange(f"as_of {as_of:g} is no time: seconds since 1970, before the year 2286")


def _is_unsendable(text: str) -> bool:
    return not text.isprintable() and _UNSENDABLE.search(text) is not None  # isprintable is much faster


_JSON_TYPES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    tuple: "an array",
    dict: "an object",
}


def folded(name: str) -> str:
    """Return the name without case, spaces, ``_``, ``-`` and invisible characters, which people write differently."""
    return _VARIED.sub("", name).lower()


def json_type(value: object) -> str:
    """Name the value's type in JSON's terms."""
    if value is None:
        return "null"
    kind = type(value)
    return next((_JSON_TYPES[base] for base in kind.__mro__ if base in _JSON_TYPES), kind.__name__)
