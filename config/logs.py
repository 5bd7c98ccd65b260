"""How log events are rendered: one JSON object a line, or text for a terminal."""

import json
import logging
import sys
from typing import Any, BinaryIO, Literal, TextIO

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
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
        )
        structlog.configure(
            processors=[*shared, lambda logger, name, event: _blotted(str(renderer(logger, name, event)))],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(terminal or sys.stderr),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[
                *shared,
                structlog.processors.ExceptionRenderer(
                    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                ),
                lambda _logger, _name, event: _blotted(_json(event)).encode(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.BytesLoggerFactory(_standard_error()),
            cache_logger_on_first_use=True,
        )
    logging.basicConfig(handlers=[_Forwarder()], level=logging.WARNING, force=True)


def _standard_error() -> BinaryIO:
    return sys.stderr.buffer


_encoder = msgspec.json.Encoder(enc_hook=str)


def _json(event: Any) -> str:  # noqa: ANN401 -- an event holds whatever its fields are
    try:
        return _encoder.encode(event).decode()
    except UnicodeEncodeError:  # half a surrogate pair, out of somebody's error text: the standard library escapes it
        return json.dumps(event, default=str)


_concealed: list[str] = []


def conceal(secret: str) -> None:
    """Blot this text out of every line from here on: the last line of defence, should anything let it through."""
    if secret not in _concealed:
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
