"""What a run of the worker is told, and the setting up that every such command begins with."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TextIO

from config import logs
from config.settings import ConfigurationError, Loaded, Settings


@dataclass(frozen=True, slots=True)
class Job:
    """What one run of the worker is to do.

    Args:
        reload: reads the settings again, for a key that was rotated meanwhile.
        drain: end when nothing is left.
        max_duration_seconds: end after so long, whatever is left.
    """

    settings: Settings
    reload: Callable[[], Loaded]
    drain: bool
    max_duration_seconds: float | None = None


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Run a command's coroutine, on the fast event loop where there is one."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    finally:
        logs.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 -- there is none for Windows
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def key_of(settings: Settings) -> str:
    """The API key.

    Raises:
        ConfigurationError: none is set.
    """
    if settings.openai_api_key is None:
        raise ConfigurationError(
            "OPENAI_API_KEY is not set: put it in the environment, .env, metasync.toml, "
            "or a file of that name in METASYNC_SECRETS_DIR"
        )
    return settings.openai_api_key.get_secret_value()


def configure_logs(settings: Settings, *, level: str | None = None, terminal: TextIO | None = None) -> None:
    """Set up logging, with the secrets blotted out of every line.

    Args:
        level: instead of the setting's.
        terminal: what to write console lines to, instead of standard error.
    """
    for secret in (settings.openai_api_key, settings.http_token):
        if secret is not None:
            logs.conceal(secret.get_secret_value())
    logs.configure(settings.log_format, level or settings.log_level, terminal=terminal)
