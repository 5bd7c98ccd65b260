"""`metasync intake`: takes changes in over HTTP and applies none; and on which terms a worker does so, too."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
    """Take changes in until stopped."""
    settings = arguments.load().settings
    if settings.intake_token is None:
        raise ConfigurationError("METASYNC_INTAKE_TOKEN is not set: it is what producers have to show")
    if settings.http_port is None:
        raise ConfigurationError("METASYNC_HTTP_PORT is not set: it is where changes are taken")
    terms = terms_of(settings)
    assert terms is not None  # noqa: S101 -- a token is set
    return run_async(_receive(Job(settings, arguments.load, drain=False), terms, settings.http_port))


def terms_of(settings: Settings) -> "Terms | None":
    """On which terms changes are taken; None where no token is set, and so none are.

    Raises:
        ConfigurationError: a token is one that may do more.
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
    async with opened(job) as queue:  # which is waited for
        await look_once(queue)
        try:
            grace = settings.shutdown_grace
            async with receiving(queue, terms, host=settings.http_host, port=port, grace_seconds=grace):
                with signals.handled(lambda _: stopped.set()):
                    await stopped.wait()
        except Unservable as error:
            raise ConfigurationError(str(error)) from None
    return Exit.DONE
