"""Parse one JSON object to a change, or say why it is none."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, Self

import msgspec
from msgspec import UNSET, UnsetType

from worker.changes.change import InvalidChange, MetadataChange, Mode, folded, json_type
from worker.changes.lines import BYTE_ORDER_MARK
from worker.changes.reading import Reading
from worker.changes.times import as_of_from
from worker.terminal import shown

JOINED = "starts with a byte order mark, as where files were joined: take it out"

# Names that people give to the id's field.
ID_NAMES = frozenset({"completionid", "id", "completion", "chatcompletionid", "chatid"})


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    completion_id: str
    metadata: dict[str, str | None]
    mode: Mode | UnsetType = UNSET
    change_id: str | UnsetType | None = UNSET
    as_of: float | str | UnsetType | None = UNSET


@cache
def _decoder(id_field: str) -> Callable[[bytes], _Line]:
    """Return a decoder of lines whose id is in the field of this name."""

    class Renamed(_Line, kw_only=True):
        completion_id: str = msgspec.field(name=id_field)

    return msgspec.json.Decoder(Renamed).decode


def line_parser(reading: Reading) -> Callable[[bytes], MetadataChange]:
    """Return a function that parses one line (a JSON object in UTF-8, without its line end) or raises `InvalidChange`.

    msgspec is much faster than the standard library, but accepts duplicate keys and says less about a bad line. A
    duplicate key, like an escaped quote, makes the line hold more quotes than its fields account for. Such a line, and
    one that msgspec refuses, is parsed again by the slow, thorough parser.
    """
    decode = _decoder(reading.id_column)
    mode, as_of = reading.mode, reading.as_of_seconds

    def parse(line: bytes) -> MetadataChange:
        try:
            fields = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return parse_slowly(line, reading)
        if line.count(b'"') != 2 * _strings(fields):
            return parse_slowly(line, reading)
        return MetadataChange(
            fields.completion_id,
            fields.metadata,
            mode if fields.mode is UNSET else fields.mode,
            None if fields.change_id is UNSET else fields.change_id,
            as_of if fields.as_of is UNSET or fields.as_of is None else as_of_from(fields.as_of),
        )

    return parse


def parse_object(text: str) -> object:
    """Read JSON text strictly: no duplicate key, no NaN. Numbers become `Number`, which keeps their text.

    Raises:
        InvalidChange: with the column, counted in characters from 1.
    """
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        problem = error.msg[:1].lower() + error.msg[1:].removesuffix(" at").removesuffix(" starting")
        line = f" of its line {error.lineno}" if error.lineno > 1 else ""
        raise InvalidChange(f"not JSON: {problem} at column {error.colno}{line}") from None
    except RecursionError:
        raise InvalidChange("nested too deeply") from None


def decode_utf8(text: bytes, what: str) -> str:
    """Decode the text. The error names ``what`` and the position of the first bad byte, from 1.

    Raises:
        InvalidChange: the text is not UTF-8.
    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InvalidChange(f"{what} is not UTF-8: byte {error.start + 1} is invalid") from None


class Number(float):
    """A JSON number; `str` gives it as it was written."""

    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


def as_text(metadata: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers and booleans by their JSON text."""
    return {key: _as_text(value) for key, value in metadata.items()}


def change_of(given: tuple[Any, Any, Any, Any, Any], reading: Reading) -> MetadataChange:
    """Make a change from decoded JSON values.

    Args:
        given: completion_id, metadata, mode, change_id and as_of, not validated yet.

    Raises:
        InvalidChange: a value breaks a rule; the hint names a flag if one helps.
    """
    completion_id, metadata, mode, change_id, as_of = given
    is_map = isinstance(metadata, dict)
    if is_map and reading.coerce:
        metadata = as_text(metadata)
    elif isinstance(metadata, str) and metadata.lstrip().startswith("{"):
        raise InvalidChange("metadata is JSON text within a string: write the object itself, without quotes around it")
    moment = as_of_from(as_of)
    try:
        return MetadataChange(
            completion_id, metadata, mode, change_id, reading.as_of_seconds if moment is None else moment
        )
    except InvalidChange as error:
        if is_map and any(isinstance(value, Number | bool) for value in metadata.values()):
            error.hint = "--coerce writes numbers and booleans as text, as JSON has them"
        raise


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, Number) else value


def _strings(fields: _Line) -> int:
    """Count the strings in a line that has each of these fields once."""
    count = 3 + 2 * len(fields.metadata) - list(fields.metadata.values()).count(None)
    if fields.mode is not UNSET:
        count += 2
    if fields.change_id is not UNSET:
        count += 1 if fields.change_id is None else 2
    if fields.as_of is not UNSET:
        count += 2 if isinstance(fields.as_of, str) else 1
    return count


def parse_slowly(line: bytes, reading: Reading) -> MetadataChange:
    """Parse one line thoroughly; see `line_parser`."""
    if b"\0" in line:
        raise InvalidChange(f"the line holds a NUL, as byte {line.index(0) + 1}: it is not UTF-8 text")
    if line.startswith(BYTE_ORDER_MARK):
        raise InvalidChange(f"the line {JOINED}")
    fields = parse_object(decode_utf8(line, "the line"))
    if not isinstance(fields, dict):
        raise InvalidChange(f"the line must be a JSON object, not {json_type(fields)}")
    names = reading.fields()
    for name in fields:
        if name not in names and not reading.ignore_unknown:
            known = f"unknown field {shown(name)}; the fields are {', '.join(names)}"
            is_id = reading.id_column not in fields and folded(name) in ID_NAMES
            raise InvalidChange(known, hint=f"--id-column {name} takes that field for the id" if is_id else "")
    for name in names[:2]:
        if name not in fields:
            raise InvalidChange(f"the field {name} is missing")
    id_field, metadata, mode, change_id, as_of = names
    found = (
        fields[id_field],
        fields[metadata],
        fields.get(mode, reading.mode),
        fields.get(change_id),
        fields.get(as_of),
    )
    return change_of(found, reading)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for name, value in pairs:
        if name in unique:
            raise InvalidChange(f"duplicate key {shown(name)}")
        unique[name] = value
    return unique


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidChange(f"not JSON: {name} is no JSON number")


# Python refuses to convert more than 4,300 digits to an int.
_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
).decode
