"""Render log events: one JSON object per line, or text for a terminal."""

import io
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, Protocol, TextIO

import msgspec
import structlog

from config import sink
from worker.spellings import MASK, SHORTEST, plain_part, spellings
from worker.terminal import has_colors, printable, printable_json, printable_lines

LogFormat = Literal["auto", "json", "console"]


def configure(
    log_format: LogFormat,
    level: str,
    *,
    terminal: TextIO | None = None,
) -> None:
    """Send every log event, the libraries' warnings included, to standard error.

    Args:
        log_format: ``auto`` is ``console`` if standard error is a terminal, else ``json``.
        level: the lowest level that is logged.
        terminal: the stream for console lines, such as one that keeps a progress bar intact.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    wrapper = structlog.make_filtering_bound_logger(level)
    structlog.configure(
        processors=[_text_renderer()] if console else [_render_json],
        wrapper_class=wrapper if console else _lean(wrapper),
        logger_factory=_Lines(_put_on(terminal) if console and terminal else sink.put),
        cache_logger_on_first_use=True,
    )
    sink.on_room(_tell_of_dropped)
    logging.basicConfig(handlers=[_Forwarder()], level=logging.WARNING, force=True)


def _lean(wrapper: Any) -> Any:  # noqa: ANN401 -- a class that structlog makes
    """The wrapper class, with a shorter way for a line as each update has one: no chain of processors, no copies."""
    if not wrapper(None, [], {}).is_enabled_for(logging.INFO):
        return wrapper

    class Lean(wrapper):  # type: ignore[misc] # of a class that structlog makes
        def info(self, event: str, *args: object, **fields: object) -> object:
            if args or "exc_info" in fields:
                return super().info(event, *args, **fields)
            return self._logger.info(_json_line("info", event, self._context | fields if self._context else fields))

    return Lean


def _text_renderer() -> structlog.typing.Processor:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    render = structlog.dev.ConsoleRenderer(
        colors=has_colors(sys.stderr), exception_formatter=_text_traceback, timestamp_key="time"
    )

    def render_text(logger: Any, method: str, event: structlog.typing.EventDict) -> bytes:  # noqa: ANN401 -- of structlog
        line: dict[str, Any] = {"exc_info": event.pop("exc_info")} if "exc_info" in event else {}
        line |= {name: _printable(msgspec.to_builtins(value, enc_hook=str)) for name, value in event.items()}
        line["level"] = method
        text = str(render(logger, method, stamp(logger, method, line)))
        return _blotted(text.encode(errors="backslashreplace")) + b"\n"

    return render_text


def _printable(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    match value:
        case str():
            return printable(value)
        case dict():
            return {_printable(name): _printable(one) for name, one in value.items()}
        case list() | tuple():
            return [_printable(one) for one in value]
        case _:
            return value


def _text_traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(printable_lines(text.getvalue()))


_render_exception = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def _render_json(logger: Any, method: str, event: structlog.typing.EventDict) -> bytes:  # noqa: ANN401 -- of structlog
    """Render in one step instead of a chain of processors."""
    name = event.pop("event")
    if "exc_info" in event:
        event = _render_exception(logger, method, event)
    return _json_line(method, name, event)


def _json_line(method: str, event: str, fields: Mapping[str, Any]) -> bytes:
    start, rest = _start(method, event), _json(fields)[1:]
    return _blotted(b'{"time":"%b",%b%b%b\n' % (_timestamp(), start, b"," if fields else b"", rest))


@lru_cache(maxsize=256)
def _start(method: str, event: str) -> bytes:
    """What all lines of an event begin with, after the time."""
    return _json({"level": method, "event": event})[1:-1]


_second = 0
_second_text = b""


def _timestamp() -> bytes:
    """Return the time in ISO 8601, UTC; within a second only the fraction is formatted anew."""
    global _second, _second_text  # noqa: PLW0603 -- a cache of one entry
    now = time.time()
    second = int(now)
    if second != _second:
        _second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        _second = second
    return b"%b.%06d+00:00" % (_second_text, (now - second) * 1e6)


class _Lines:
    """Writes rendered lines to standard error or its replacement."""

    def __init__(self, write: "_Write") -> None:
        self._write = write

    def __call__(self, *_: object) -> "_Lines":
        """Return itself: all loggers share one."""
        return self

    def info(self, line: bytes) -> None:
        self._write(line, matters=False)

    def warning(self, line: bytes) -> None:
        self._write(line, matters=True)

    msg = log = debug = info
    warn = error = critical = exception = warning


class _Write(Protocol):
    def __call__(self, line: bytes, *, matters: bool) -> None: ...


def _put_on(terminal: TextIO) -> _Write:
    def put(line: bytes, *, matters: bool) -> None:
        del matters
        with suppress(OSError, ValueError):
            terminal.write(line.decode())

    return put


def _tell_of_dropped(lines: int) -> None:
    structlog.get_logger().warning("worker.log_dropped", lines=lines)


_encoder = msgspec.json.Encoder(enc_hook=str)


def _json(event: Any) -> bytes:  # noqa: ANN401 -- fields have any type
    try:
        text = _encoder.encode(event)
    except UnicodeEncodeError:  # half a surrogate pair in an error's text; the standard library escapes it
        return json.dumps(event, default=str).encode()
    if text.isascii() and b"\x7f" not in text:  # as nearly all are; `printable_json` would find nothing
        return text
    return printable_json(text.decode()).encode()


# A part of each secret that all its spellings contain, and a pattern for those; None if it is spelled in one way alone.
_concealed: dict[str, tuple[bytes, re.Pattern[bytes] | None]] = {}
_MASK = MASK.encode()


def conceal(secret: str) -> None:
    """Mask this text, however spelled, in every line from now on: the last defence if other code lets it through."""
    if len(secret) >= SHORTEST:
        part = plain_part(secret)
        pattern = None if part == secret else re.compile(spellings(secret).encode(errors="surrogatepass"))
        _concealed[secret] = part.encode(), pattern


def _blotted(line: bytes) -> bytes:
    for part, spelled in _concealed.values():
        if spelled is None:
            line = line.replace(part, _MASK)
        elif line.find(part) >= 0:  # which takes far less time than the pattern
            line = spelled.sub(_MASK, line)
    return line


class _Forwarder(logging.Handler):
    """Forwards the libraries' log records to the same stream and format."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library.logged", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )
