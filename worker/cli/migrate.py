"""`metasync migrate`: the queue's schema, created, upgraded or printed."""

import argparse
import asyncio

from config.settings import without_password
from worker.cli.exits import Exit
from worker.cli.flags import add_settings, load_settings
from worker.cli.output import say, tell
from worker.queue import migration_sql, open_queue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("--sql", action="store_true", help="print the statements instead of running them")
    add_settings(parser, "queue_url", "store_timeout")


def execute(arguments: argparse.Namespace) -> int:
    """Bring the schema to this version's."""
    settings = load_settings(arguments).settings
    if arguments.sql:
        say(migration_sql(settings.queue_url).rstrip())
    else:
        asyncio.run(_open(settings.queue_url, settings.store_timeout))
        tell(f"the queue at {without_password(settings.queue_url)} is ready")
    return Exit.DONE


async def _open(url: str, timeout_seconds: float) -> None:
    async with open_queue(url, timeout_seconds=timeout_seconds):
        pass
