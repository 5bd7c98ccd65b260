"""The parameters of a worker's run, and the set-up that its commands share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

import structlog

from config import logs
from config.settings import ConfigurationError, Loaded, Settings, file_times, place_of, secrets_of
from worker.cli import loop
from worker.queue import QueueUnavailable, Store, open_patiently
from worker.threads import NoThread, in_thread

TYPE_CHECKING = False  # type checkers know this name; importing the engine is slow
if TYPE_CHECKING:
    from worker.engine.results import Results

_FIRST_LOOK_SECONDS = 1.0
_MOST_FILES = 65_536


@dataclass(frozen=True, slots=True)
class Job:
    """The parameters of one run of the worker.

    Args:
        reload: reads the settings again, for a rotated key.
        drain: whether to end when nothing is left.
        max_duration_seconds: end after this time, even if changes are left.
        warning: shown before anything is sent.
        results: writes outcomes; None for no results file.
    """

    settings: Settings
    reload: Callable[[], Loaded]
    drain: bool
    max_duration_seconds: float | None = None
    warning: str | None = None
    results: "Results | None" = None

    async def reloaded(self) -> Loaded:
        """Read the settings again, in a thread because disks may be slow.

        Raises:
            ConfigurationError: they cannot be used.
        """
        try:
            return await in_thread(self.reload)
        except NoThread:
            return self.reload()


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Run a command's coroutine, on uvloop if it is available."""
    _allow_files()
    return loop.run(main, _loop_factory())


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Store]:
    """Yield the job's queue; calls raise `QueueUnavailable` until the store is reachable."""
    settings, url = job.settings, job.settings.queue_url
    times: tuple[int, ...] | None = None

    async def read_url() -> str:
        nonlocal url, times
        found = file_times(settings)
        if times is not None and found != times:
            try:
                url = (await job.reloaded()).settings.queue_url
            except ConfigurationError as error:
                structlog.get_logger().warning("settings.unreadable", error=str(error))
        times = found
        return url

    def tell_of(queue: Store) -> None:
        structlog.get_logger().info("queue.opened", queue=place_of(url))
        for warning in queue.warnings:
            structlog.get_logger().warning("store.warning", warning=warning)

    async with open_patiently(read_url, timeout_seconds=settings.store_timeout, on_open=tell_of) as queue:
        yield queue


async def look_once(queue: Store) -> str | None:
    """Check the store's name early, since a daemon otherwise waits for its store; return why it has to, if it has.

    Raises:
        QueueMisnamed: the name can never be a store.
    """
    try:
        async with asyncio.timeout(_FIRST_LOOK_SECONDS):
            await queue.next_due_seconds()
    except QueueUnavailable as error:
        return str(error)
    except TimeoutError:
        return f"the store has not answered within {_FIRST_LOOK_SECONDS:.0f} s"
    return None


def _allow_files() -> None:
    """Allow as many open files as this process may have: each request takes one, and many systems begin with 1,024."""
    try:
        import resource  # noqa: PLC0415 -- not available for Windows
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 -- not available for Windows
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def key_of(settings: Settings) -> str:
    """Return the API key.

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
    """Set up logging, with secrets masked in every line.

    Args:
        level: instead of the setting's.
        terminal: receives console lines instead of standard error.
    """
    for secret in secrets_of(settings):
        logs.conceal(secret)
    logs.configure(settings.log_format, level or settings.log_level, terminal=terminal)
