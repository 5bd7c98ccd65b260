"""`metasync intake`: accept changes over HTTP without applying them; also the intake's terms, for workers."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import structlog

from config.settings import ConfigurationError, Settings, tokens_of
from worker.cli import signals
from worker.cli.exits import Exit
from worker.cli.flags import LOGGING, RECEIVING, SERVING, STORE, Configured
from worker.cli.job import Job, configure_logs, look_once, opened, run_async

if TYPE_CHECKING:
    from worker.web import Terms


@dataclass(frozen=True, slots=True)
class Receive(Configured):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = (*STORE, *SERVING, *RECEIVING, "shutdown_grace", *LOGGING)


MODEL = Receive


def execute(arguments: Receive) -> int:
    """Accept changes until stopped."""
    settings = arguments.load().settings
    if settings.intake_token is None:
        raise ConfigurationError("METASYNC_INTAKE_TOKEN is not set: producers need it")
    if settings.http_port is None:
        raise ConfigurationError("METASYNC_HTTP_PORT is not set: producers send changes to it")
    terms = terms_of(settings)
    assert terms is not None  # noqa: S101 -- a token is set
    return run_async(_receive(Job(settings, arguments.load, drain=False), terms, settings.http_port))


def terms_of(settings: Settings) -> "Terms | None":
    """Return the intake's configuration; None without a token, which turns the intake off.

    Raises:
        ConfigurationError: a token is also the page's token, which may do more.
    """
    if settings.intake_token is None:
        return None
    tokens = tokens_of(settings.intake_token)
    if settings.http_token is not None and settings.http_token.get_secret_value() in tokens:
        raise ConfigurationError(
            "METASYNC_INTAKE_TOKEN must not be METASYNC_HTTP_TOKEN: producers could act on dead letters with it"
        )
    from worker.web import Terms  # noqa: PLC0415 -- slow to import

    return Terms(tokens, settings.mode, settings.intake_max_pending)


async def _receive(job: Job, terms: "Terms", port: int) -> Exit:
    from worker.web import Unservable, receiving  # noqa: PLC0415 -- slow to import

    settings = job.settings
    configure_logs(settings)
    stopped = asyncio.Event()
    async with opened(job) as queue:  # waits for the store
        if (trouble := await look_once(queue)) is not None:
            structlog.get_logger().warning("store.unavailable", operation="begin", error=trouble)
        try:
            grace = settings.shutdown_grace
            async with receiving(queue, terms, host=settings.http_host, port=port, grace_seconds=grace):
                with signals.handled(lambda _: stopped.set()):
                    await stopped.wait()
        except Unservable as error:
            raise ConfigurationError(str(error)) from None
    return Exit.DONE
