"""How log events are rendered: one JSON object a line, or text for a terminal."""

import asyncio
import atexit
import json
import logging
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec
import structlog

LogFormat = Literal["auto", "json", "console"]


def configure(
    log_format: LogFormat,
    level: str,
    *,
    terminal: TextIO | None = None,
) -> None:
    """Send every log event, the libraries' warnings included, to standard error.

    Args:
        log_format: ``auto`` is ``console`` where standard error is a terminal, else ``json``.
        level: the least level that is logged.
        terminal: what to write console lines to instead, such as a stream that keeps a progress bar intact.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[_text_renderer()] if console else [_render_json],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(terminal or sys.stderr) if console else _lines,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forwarder()], level=logging.WARNING, force=True)


def _text_renderer() -> structlog.typing.Processor:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    render = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
    )

    def render_text(logger: Any, method: str, event: structlog.typing.EventDict) -> str:  # noqa: ANN401 -- whatever structlog hands over
        event["level"] = method
        return _blotted(str(render(logger, method, stamp(logger, method, event))))

    return render_text


_render_exception = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def _render_json(logger: Any, method: str, event: structlog.typing.EventDict) -> bytes:  # noqa: ANN401 -- whatever structlog hands over
    """One step in place of a chain of them: this is what each outcome pays for its log line."""
    line = {"time": _timestamp(), "level": method, "event": event.pop("event")}
    if "exc_info" in event:
        event = _render_exception(logger, method, event)
    line.update(event)
    return _blotted(_json(line)).encode()


_second = 0
_second_text = ""


def _timestamp() -> str:
    """ISO 8601, in UTC. Only the fraction is written anew within a second."""
    global _second, _second_text  # noqa: PLW0603 -- a memory of one entry
    now = time.time()
    second = int(now)
    if second != _second:
        _second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = second
    return f"{_second_text}.{int((now - second) * 1e6):06d}+00:00"


class _Lines:
    """Writes lines to standard error, those of one turn of the event loop together: a call to the system costs.

    A worker whose log cannot be written goes on without it: the disk may be full of it.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._lock = threading.Lock()

    def __call__(self, *_: object) -> "_Lines":
        """There is one for all loggers."""
        return self

    def msg(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)
            if len(self._lines) > 1:
                return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:  # there is none in this thread, or none yet
            self.flush()

    log = debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            if lines:
                with suppress(OSError, ValueError):
                    sys.stderr.buffer.write(b"\n".join(lines) + b"\n")
                    sys.stderr.buffer.flush()


_lines = _Lines()
flush = _lines.flush
atexit.register(flush)


_encoder = msgspec.json.Encoder(enc_hook=str)


def _json(event: Any) -> str:  # noqa: ANN401 -- an event holds whatever its fields are
    try:
        return _encoder.encode(event).decode()
    except UnicodeEncodeError:  # half a surrogate pair, out of somebody's error text: the standard library escapes it
        return json.dumps(event, default=str)


_concealed: list[str] = []
_SHORTEST_SECRET = 8  # a shorter key is no key, but a placeholder that common words may hold


def conceal(secret: str) -> None:
    """Blot this text out of every line from here on: the last line of defence, should anything let it through."""
    if len(secret) >= _SHORTEST_SECRET and secret not in _concealed:
        _concealed.append(secret)


def _blotted(line: str) -> str:
    for secret in _concealed:
        line = line.replace(secret, "***")
    return line


class _Forwarder(logging.Handler):
    """Carries what libraries log into the same stream and format."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library.logged", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )
