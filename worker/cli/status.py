"""`metasync status`: how much is pending, in flight, waiting and dead, and what the workers are doing."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import asdict

from worker.cli.exits import Exit
from worker.cli.flags import add_settings, load_settings
from worker.cli.output import age_text, say, say_json, table
from worker.cli.words import flow_words
from worker.flow import FlowState, parse_state
from worker.queue import open_queue
from worker.queue.base import Note, QueueStatus
from worker.queue.notes import at_work

_WATCH_SECONDS = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    add_settings(parser, "queue_url", "store_timeout")


def execute(arguments: argparse.Namespace) -> int:
    """Print the queue's figures."""
    settings = load_settings(arguments).settings
    asyncio.run(_show(settings.queue_url, settings.store_timeout, json=arguments.json, watch=arguments.watch))
    return Exit.DONE


async def _show(url: str, timeout_seconds: float, *, json: bool, watch: bool) -> None:
    async with open_queue(url, timeout_seconds=timeout_seconds) as queue:
        while True:
            status, workers = await queue.status(), _workers(await queue.read_notes())
            if watch and sys.stdout.isatty() and not json:
                sys.stdout.write(_HOME_AND_CLEAR)
            if json:
                say_json(asdict(status) | {"workers": {name: flow and asdict(flow) for name, flow in workers.items()}})
            else:
                say(_text(status, workers))
            sys.stdout.flush()
            if not watch:
                return
            await asyncio.sleep(_WATCH_SECONDS)


def _workers(notes: Mapping[str, Note]) -> dict[str, FlowState | None]:
    """The workers that are at work on the queue now, by name; None of one whose release says other things."""
    return {name: parse_state(note.text) for name, note in at_work(notes).items()}


def _text(status: QueueStatus, workers: Mapping[str, FlowState | None]) -> str:
    oldest = "-" if status.oldest_pending_seconds is None else age_text(status.oldest_pending_seconds)
    rows = [
        ("pending", f"{status.pending:,}", "changes that are not done"),
        ("in flight", f"{status.in_flight:,}", "of these, held by a worker"),
        ("waiting", f"{status.waiting:,}", "of these, for a retry time"),
        ("dead", f"{status.dead:,}", "dead letters"),
        ("oldest", oldest, "age of the oldest pending change"),
        ("rate", f"{status.recent_per_second:,.1f}/s", "done a second, over the last five minutes"),
    ]
    lines = [
        f"worker {name}: {', '.join(flow_words(flow)) if flow else 'of another release, which says other things'}"
        for name, flow in workers.items()
    ]
    return "\n".join((table(rows, right=(1,)), *(lines or ["no worker is running"])))
