"""`metasync migrate`: create, upgrade or print the queue's schema."""

from dataclasses import dataclass
from typing import Annotated

from config.settings import place_of
from worker.cli import loop
from worker.cli.exits import Exit
from worker.cli.flags import Configured
from worker.cli.output import say_raw, tell
from worker.flags import Flag
from worker.queue import migration_sql, open_queue


@dataclass(frozen=True, slots=True)
class Migrate(Configured):
    """The verb's arguments."""

    sql: Annotated[bool, Flag("print the statements instead of running them")] = False


MODEL = Migrate


def execute(arguments: Migrate) -> int:
    """Create the schema, or upgrade it to this version."""
    settings = arguments.load().settings
    if arguments.sql:
        say_raw(migration_sql(settings.queue_url).rstrip())
    else:
        loop.run(_open(settings.queue_url, settings.store_timeout))
        tell(f"the queue at {place_of(settings.queue_url)} is ready")
    return Exit.DONE


async def _open(url: str, timeout_seconds: float) -> None:
    async with open_queue(url, timeout_seconds=timeout_seconds) as queue:
        for warning in queue.warnings:
            tell(f"warning: {warning}")
