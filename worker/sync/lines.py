"""The lines that a pull writes: each is a change that leaves the completion as it was found."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import msgspec

Format = Literal["jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Beside the change itself; none of them holds a word of the conversation but the last.
FIELDS = (
    "model",
    "created",
    "request_id",
    "service_tier",
    "system_fingerprint",
    "seed",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "usage",
    "messages",
)
CONVERSATION = "messages"

_encode = msgspec.json.Encoder().encode
_MODE = "replace"


class NotOurs(ValueError):
    """A line is none that a pull writes."""


class Form(Protocol):
    """How lines are written.

    `header` comes before the first line, and `start` is what a file of such lines begins with.
    """

    header: bytes
    start: bytes

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """One line, with its end.

        Args:
            fields: what is there of the further fields; values are JSON, or JSON text as `msgspec.Raw`.
        """

    def id_of(self, line: bytes) -> str:
        """The completion of a line that was written before.

        Raises:
            NotOurs: it is no such line.
        """


class _Id(msgspec.Struct):
    completion_id: str
    metadata: dict[str, str]


_decode_id = msgspec.json.Decoder(_Id).decode


class JsonLines:
    """A JSON object a line."""

    header = b""
    start = b'{"completion_id":"'

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """One line; see `Form.line`."""
        change = {"completion_id": completion_id, "metadata": metadata, "mode": _MODE}
        return (_on_one_line(_encode({**change, **fields})) if fields else _encode(change)) + b"\n"

    def id_of(self, line: bytes) -> str:
        """The completion of a line; see `Form.id_of`."""
        try:
            return _decode_id(line).completion_id
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise NotOurs from None


class Csv:
    """A row a line (RFC 4180): the map is JSON in a cell of its own, so that it can hold anything.

    Args:
        fields: the further columns.
    """

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self._fields = fields
        self.header = self.start = ",".join(("completion_id", "mode", "metadata", *fields)).encode() + b"\n"

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """One line; see `Form.line`."""
        cells = [completion_id, _MODE, _cell(_encode(metadata).decode())]
        cells += [_cell(_text(fields.get(name))) for name in self._fields]
        return ",".join(cells).encode() + b"\n"

    def id_of(self, line: bytes) -> str:
        """The completion of a line; see `Form.id_of`."""
        completion_id, mode, _ = (*line.split(b",", 2), b"", b"")[:3]
        if mode != _MODE.encode():
            raise NotOurs
        return completion_id.decode("ascii", "replace")


def form_of(name: Format, fields: Sequence[str]) -> Form:
    """What writes lines of this format."""
    return Csv(fields) if name == "csv" else JsonLines()


def _cell(text: str) -> str:
    if any(mark in text for mark in '",\r\n'):
        return f'"{text.replace(chr(34), chr(34) * 2)}"'
    return text


def _on_one_line(text: bytes) -> bytes:
    """The same JSON, in UTF-8: what a service indents comes with ends of lines, which only stand between tokens."""
    if not text.isascii():
        text = text.decode("utf-8", "replace").encode()
    return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text


def _text(value: object) -> str:
    if isinstance(value, msgspec.Raw):
        raw = bytes(value)
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _on_one_line(raw).decode("utf-8", "replace")
    if value is None:
        return ""
    if isinstance(value, str) and not ("\n" in value or "\r" in value):  # a row is a line, too
        return value
    return _on_one_line(_encode(value)).decode()
