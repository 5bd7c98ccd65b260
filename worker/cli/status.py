"""`metasync status`: show the queue's counts, the workers' state and their leases."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Self

from worker.cli import loop
from worker.cli.exits import Exit
from worker.cli.flags import Configured, Prints
from worker.cli.output import age_text, flush, say, say_json, say_raw, table, time_text
from worker.cli.paused import Paused
from worker.cli.words import flow_words
from worker.flags import Flag
from worker.flow import FlowState, parse_state
from worker.queue import LeaseHolder, Note, QueueStatus, Store, open_queue, pause_of
from worker.queue.notes import FRESH_SECONDS, PAUSE, Limit, at_work, limit_in
from worker.terminal import is_terminal, printable

_WATCH_SECONDS = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
# On a full disk, workers run whose notes cannot be written.
_NO_WORKER = f"no worker has left a note for {FRESH_SECONDS:.0f} s: none is running, or none can write to the store"


@dataclass(frozen=True, slots=True)
class Holding:
    """The leases of one worker.

    Args:
        owner: the worker's name.
        since: when it took the first lease.
        until: when its last lease runs out, unless extended.
    """

    owner: str
    completions: int
    changes: int
    since: str
    until: str

    @classmethod
    def of(cls, holder: LeaseHolder) -> Self:
        """Convert, with formatted times."""
        return cls(**asdict(holder) | {"since": time_text(holder.since), "until": time_text(holder.until)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(QueueStatus):
    """The queue's counts, and its workers.

    Args:
        workers: the state of each worker, by name; null if its release uses another format.
        limit: the service's rate limit, as last found.
        paused: who paused the queue; null if it is not paused.
        batches: how many batches have pending changes.
        leases: leases by worker, the oldest first; null unless requested.
    """

    workers: Mapping[str, FlowState | None]
    limit: Limit | None
    paused: Paused | None = None
    batches: int = 0
    leases: Sequence[Holding] | None = None


@dataclass(frozen=True, slots=True)
class Status(Configured):
    """The verb's arguments."""

    json: Annotated[bool, Flag("print one JSON object"), Prints(Report)] = False
    leases: Annotated[bool, Flag("show who holds how many leases, since when and until when")] = False
    watch: Annotated[bool, Flag("repeat every second, until Ctrl-C")] = False


MODEL = Status


def execute(arguments: Status) -> int:
    """Print the queue's state."""
    settings = arguments.load().settings
    loop.run(_show(arguments, settings.queue_url, settings.store_timeout))
    return Exit.DONE


async def _show(arguments: Status, url: str, timeout_seconds: float) -> None:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        while True:
            report = await _report(queue, leases=arguments.leases)
            if arguments.watch and is_terminal(sys.stdout) and not arguments.json:
                say_raw(_HOME_AND_CLEAR, end="")
            if arguments.json:
                say_json(report)
            else:
                say(_text(report))
            flush()
            if not arguments.watch:
                return
            await asyncio.sleep(_WATCH_SECONDS)


async def _report(queue: Store, *, leases: bool) -> Report:
    status, notes = await queue.status(), await queue.read_notes()
    return Report(
        **asdict(status),
        workers=_workers(notes),
        limit=limit_in(notes),
        paused=Paused.told(pause_of(notes.get(PAUSE))),
        batches=sum(batch.pending > 0 for batch in await queue.batches()),
        leases=[Holding.of(holder) for holder in await queue.leases()] if leases else None,
    )


def _workers(notes: Mapping[str, Note]) -> dict[str, FlowState | None]:
    """Return the state of each active worker, by name; None if its release uses another format."""
    return {name: parse_state(note.text, note.age_seconds) for name, note in at_work(notes).items()}


def _text(status: Report) -> str:
    about = "about " if status.approximate else ""
    oldest = "-" if status.oldest_pending_seconds is None else age_text(status.oldest_pending_seconds)
    rows = [
        ("pending", f"{about}{status.pending:,}", "changes that are not done"),
        ("in flight", f"{about}{status.in_flight:,}", "of these, claimed by a worker"),
        ("waiting", f"{about}{status.waiting:,}", "of these, waiting for a retry"),
        ("dead", f"{about}{status.dead:,}", "dead letters"),
        ("oldest", oldest, "age of the oldest pending change"),
        ("rate", f"{status.recent_per_second:,.1f}/s", "done a second, over the last five minutes"),
    ]
    if status.batches:
        rows.append(("batches", f"{status.batches:,}", "with pending changes: `metasync batch list`"))
    if status.limit is not None:
        found = f"of requests, as found {age_text(status.limit.age_seconds)} ago"
        rows.append(("limit", f"{status.limit.per_second * 60:,.0f}/min", found))
    lines = [
        printable(
            f"worker {name}: {', '.join(flow_words(flow)) if flow else 'of another release, whose state is unknown'}"
        )
        for name, flow in status.workers.items()
    ]
    parts = [table(rows, right=(1,)), *(lines or [_NO_WORKER])]
    if status.paused is not None:
        parts.insert(0, f"PAUSED: {printable(status.paused.sentence)}")
    if status.leases is not None:
        parts.append(_leases_text(status.leases))
    return "\n".join(parts)


def _leases_text(leases: Sequence[Holding]) -> str:
    if not leases:
        return "there are no leases"
    head = ("owner", "completions", "changes", "since", "until")
    rows = [(each.owner, f"{each.completions:,}", f"{each.changes:,}", each.since, each.until) for each in leases]
    return table([head, *rows], right=(1, 2))
