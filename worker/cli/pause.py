"""`metasync pause`: no worker on the queue starts anything, until `metasync resume`."""

from dataclasses import dataclass
from typing import Annotated

from worker.cli import loop
from worker.cli.exits import Exit
from worker.cli.flags import Configured
from worker.cli.output import say, tell
from worker.cli.paused import lasting, who
from worker.flags import Flag
from worker.queue import MAX_PAUSE_CHARACTERS, open_queue, pause


@dataclass(frozen=True, slots=True)
class PauseQueue(Configured):
    """The verb's arguments."""

    reason: Annotated[str | None, Flag("the reason, shown to other users", metavar="TEXT")] = None


MODEL = PauseQueue
EPILOG = """\
Workers notice it within two seconds. They finish the requests in flight and give back the rest of what they hold.
Changes are still accepted. A drain ends with exit code 75. If the queue is already paused, only the name and reason
change. `metasync status` shows who paused it."""


def execute(arguments: PauseQueue) -> int:
    """Pause the queue."""
    settings = arguments.load().settings
    if len(arguments.reason or "") > MAX_PAUSE_CHARACTERS:
        tell(f"metasync pause: --reason has at most {MAX_PAUSE_CHARACTERS} characters")
        return Exit.USAGE
    loop.run(_pause(settings.queue_url, settings.store_timeout, arguments.reason))
    return Exit.DONE


async def _pause(url: str, timeout_seconds: float, reason: str | None) -> None:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        before = await pause(queue, who()[:MAX_PAUSE_CHARACTERS], reason)
    if before is None:
        say("paused: workers start nothing new after two seconds; `metasync resume` ends the pause")
    else:
        say(f"it was {lasting(before)}; it stays paused, with your name and reason")
