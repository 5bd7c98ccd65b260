"""`metasync resume`: end a pause."""

from dataclasses import dataclass

from worker.cli import loop
from worker.cli.exits import Exit
from worker.cli.flags import Configured
from worker.cli.output import say
from worker.cli.paused import lasting
from worker.queue import open_queue, resume


@dataclass(frozen=True, slots=True)
class ResumeQueue(Configured):
    """The verb's arguments."""


MODEL = ResumeQueue


def execute(arguments: ResumeQueue) -> int:
    """Let the queue's workers continue."""
    settings = arguments.load().settings
    loop.run(_resume(settings.queue_url, settings.store_timeout))
    return Exit.DONE


async def _resume(url: str, timeout_seconds: float) -> None:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        before = await resume(queue)
    say("the queue is not paused" if before is None else f"resumed; it was {lasting(before)}")
