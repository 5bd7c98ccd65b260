"""One line of JSON becomes a change, or a reason why it cannot."""

import json
from typing import NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from worker.changes.change import InvalidChange, MetadataChange, Mode, json_type, shown

FIELDS = ("completion_id", "metadata", "mode", "change_id")


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    completion_id: str
    metadata: dict[str, str | None]
    mode: Mode | UnsetType = UNSET
    change_id: str | UnsetType | None = UNSET


_decode_line = msgspec.json.Decoder(_Line).decode


def parse_line(line: bytes, mode: Mode) -> MetadataChange:
    """Read one line.

    msgspec is much faster than the standard library, but lets a duplicate key pass and says less about a bad line.
    A key that is there twice brings more quotes than the fields account for, as an escaped quote does: such a line,
    and one that msgspec refuses, is read again slowly.

    Args:
        line: a JSON object in UTF-8, without its end of line.
        mode: of a change that does not name one.

    Raises:
        InvalidChange: the line is no JSON object, or no valid change.
    """
    try:
        fields = _decode_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _parse_slowly(line, mode)
    if line.count(b'"') != 2 * _strings(fields):
        return _parse_slowly(line, mode)
    return MetadataChange(
        fields.completion_id,
        fields.metadata,
        mode if fields.mode is UNSET else fields.mode,
        None if fields.change_id is UNSET else fields.change_id,
    )


def parse_object(text: str) -> object:
    """Read JSON text strictly: no duplicate key, no NaN. Numbers are not kept: no field of ours is one.

    Raises:
        InvalidChange: with the column, counted in characters from 1.
    """
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        problem = error.msg[:1].lower() + error.msg[1:].removesuffix(" at").removesuffix(" starting")
        raise InvalidChange(f"not JSON: {problem} at column {error.pos + 1}") from None
    except RecursionError:
        raise InvalidChange("nested too deeply") from None


def decode_utf8(text: bytes, what: str) -> str:
    """Decode; ``what`` is named when it cannot be, with the position of the first bad byte, from 1.

    Raises:
        InvalidChange: the text is not UTF-8.
    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InvalidChange(f"{what} is not UTF-8: byte {error.start + 1} is invalid") from None


def _strings(fields: _Line) -> int:
    """Count the strings in a line that has these fields, each one once."""
    count = 3 + 2 * len(fields.metadata) - list(fields.metadata.values()).count(None)
    if fields.mode is not UNSET:
        count += 2
    if fields.change_id is not UNSET:
        count += 1 if fields.change_id is None else 2
    return count


def _parse_slowly(line: bytes, mode: Mode) -> MetadataChange:
    if b"\0" in line:
        raise InvalidChange(f"the line holds a NUL, as byte {line.index(0) + 1}: it is not UTF-8 text")
    fields = parse_object(decode_utf8(line, "the line"))
    if not isinstance(fields, dict):
        raise InvalidChange(f"the line must be a JSON object, not {json_type(fields)}")
    for name in fields:
        if name not in FIELDS:
            raise InvalidChange(f"unknown field {shown(name)}; the fields are {', '.join(FIELDS)}")
    for name in FIELDS[:2]:
        if name not in fields:
            raise InvalidChange(f"the field {name} is missing")
    return MetadataChange(**{"mode": mode, **fields})


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique: dict[str, object] = {}
    for name, value in pairs:
        if name in unique:
            raise InvalidChange(f"duplicate key {shown(name)}")
        unique[name] = value
    return unique


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidChange(f"not JSON: {name} is no JSON number")


# An integer is read as a float: Python refuses to convert more than 4,300 digits to an int.
_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float, parse_constant=_refuse_constant).decode
