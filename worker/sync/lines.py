"""The lines that a pull writes: each is a change that would leave the completion as it is."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import msgspec

from worker.terminal import printable_json, printable_lines

Format = Literal["jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Beside the change itself. Only the last one holds text of the conversation.
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
    """A line was not written by a pull."""


class Form(Protocol):
    """A format of lines.

    `header` precedes the first line; `start` is how every file of such lines begins.
    """

    header: bytes
    start: bytes

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """Return one line, with its line end.

        Args:
            fields: further fields, if present; values are JSON, or JSON text as `msgspec.Raw`.
        """

    def id_of(self, line: bytes) -> str:
        """Return the completion id of a written line.

        Raises:
            NotOurs: the line has another form.
        """


class _Id(msgspec.Struct):
    completion_id: str
    metadata: dict[str, str]


_decode_id = msgspec.json.Decoder(_Id).decode


class JsonLines:
    """One JSON object per line."""

    header = b""
    start = b'{"completion_id":"'

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """See `Form.line`."""
        change = {"completion_id": completion_id, "metadata": metadata, "mode": _MODE}
        return (_on_one_line(_encode({**change, **fields})) if fields else _encode(change)) + b"\n"

    def id_of(self, line: bytes) -> str:
        """See `Form.id_of`."""
        try:
            return _decode_id(line).completion_id
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise NotOurs from None


class Csv:
    """One CSV row per line (RFC 4180); a JSON cell holds the metadata, so that any key and value fits.

    Args:
        fields: further columns.
    """

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self._fields = fields
        self.header = self.start = ",".join(("completion_id", "mode", "metadata", *fields)).encode() + b"\n"

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """See `Form.line`."""
        cells = [completion_id, _MODE, _cell(_encode(metadata).decode())]
        cells += [_cell(_text(fields.get(name))) for name in self._fields]
        return ",".join(cells).encode() + b"\n"

    def id_of(self, line: bytes) -> str:
        """See `Form.id_of`."""
        completion_id, mode, _ = (*line.split(b",", 2), b"", b"")[:3]
        if mode != _MODE.encode():
            raise NotOurs
        return completion_id.decode("ascii", "replace")


class OnTerminal:
    """A form for a terminal: what could control it is escaped, within JSON as JSON has it."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.header, self.start = form.header, form.start

    def line(self, completion_id: str, metadata: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
        """See `Form.line`."""
        line = self._form.line(completion_id, metadata, fields).decode("utf-8", "replace")
        return printable_lines(printable_json(line)).encode()

    def id_of(self, line: bytes) -> str:
        """See `Form.id_of`."""
        return self._form.id_of(line)


def form_of(name: Format, fields: Sequence[str]) -> Form:
    """Return the writer of this format."""
    return Csv(fields) if name == "csv" else JsonLines()


def _cell(text: str) -> str:
    if any(mark in text for mark in '",\r\n'):
        return f'"{text.replace(chr(34), chr(34) * 2)}"'
    return text


def _on_one_line(text: bytes) -> bytes:
    """Return the same JSON on one line: a service may indent it, with line ends between tokens."""
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
    if isinstance(value, str) and not ("\n" in value or "\r" in value):  # a row must stay on one line
        return value
    return _on_one_line(_encode(value)).decode()
