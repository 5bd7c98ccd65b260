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

    reason: Annotated[str | None, Flag("why, for those who find it paused", metavar="TEXT")] = None


MODEL = PauseQueue
EPILOG = """\
Workers hear of it within two seconds. They finish the requests that are in flight and give back what they only hold.
Changes are taken in as before. A drain ends with exit code 75. A queue that is paused already stays so, with the new
name and reason. `metasync status` says who has paused it."""


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
        say("paused: workers start nothing more from two seconds on; `metasync resume` lets them go on")
    else:
        say(f"it was {lasting(before)}; it stays paused, with your name and reason")
