"""`metasync pending`: list and withdraw pending changes."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import msgspec

from worker.cli import loop
from worker.cli.batches import find
from worker.cli.exits import Exit
from worker.cli.flags import Configured, Prints
from worker.cli.output import as_of_text, say, say_json, say_raw, table, tell, time_text
from worker.cli.verbs import Action
from worker.cli.withdrawing import YES, Withdrawal, withdraw
from worker.flags import Flag
from worker.queue import PendingSelection, QueuedChange, open_queue
from worker.queue.text import storable

_PAGE_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A pending change. Times are in UTC, in RFC 3339's form.

    Args:
        id: its place in the queue's order.
        metadata: the change's metadata; the stored text if it is invalid.
        as_of: when the change was true; null if the producer did not say.
        batch: the batch that it belongs to; null for none.
    """

    id: int
    completion_id: str
    change_id: str | None
    metadata: Any
    mode: str
    enqueued_at: str
    as_of: str | None
    batch: str | None

    @classmethod
    def of(cls, change: QueuedChange) -> Self:
        """Convert the store's form."""
        return cls(
            id=change.number,
            completion_id=change.completion_id,
            change_id=change.change_id,
            metadata=_decoded(change.metadata),
            mode=change.mode,
            enqueued_at=time_text(change.enqueued_at),
            as_of=as_of_text(change.as_of),
            batch=change.batch,
        )


@dataclass(frozen=True, slots=True)
class Selected(Configured):
    """The arguments that name pending changes."""

    completion: Annotated[str | None, Flag("only those of this completion", metavar="ID")] = None
    change_id: Annotated[str | None, Flag("only the one with this change_id", metavar="ID")] = None
    batch: Annotated[str | None, Flag("only those of this batch", metavar="NAME")] = None

    @property
    def selection(self) -> PendingSelection:
        """Convert to the queue's form."""
        return PendingSelection(storable(self.batch), storable(self.completion), storable(self.change_id))


@dataclass(frozen=True, slots=True)
class List(Selected):
    """The arguments of `list`."""

    json: Annotated[bool, Flag("machine-readable"), Prints(list[PendingChange])] = False


@dataclass(frozen=True, slots=True)
class Withdraw(Selected):
    """The arguments of `withdraw`."""

    yes: Annotated[bool, YES] = False
    json: Annotated[bool, Flag("one JSON object"), Prints(Withdrawal)] = False


MODEL = {
    "list": Action("one line a change, those of a completion in their order; with --json its metadata, too", List),
    "withdraw": Action("take them back", Withdraw),
}


def execute(arguments: List | Withdraw) -> int:
    """Carry out the action on the changes that are named."""
    if isinstance(arguments, List):
        settings = arguments.load().settings
        return loop.run(_list(settings.queue_url, settings.store_timeout, arguments))
    if arguments.selection.is_everything:
        tell("metasync pending withdraw: name changes, by --completion, --change-id or --batch")
        return Exit.USAGE
    return withdraw(arguments, arguments.selection, yes=arguments.yes, json=arguments.json)


async def _list(url: str, timeout_seconds: float, arguments: List) -> int:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        if arguments.batch is not None and await find(queue, arguments.batch) is None:
            if arguments.json:
                say_json([])  # as for letters: a missing batch has no changes
            return Exit.NOT_ALL
        changes = queue.pending_changes(arguments.selection)
        await (_print_json if arguments.json else _print_table)(changes)
    return Exit.DONE


async def _print_json(changes: AsyncIterator[QueuedChange]) -> None:
    """One JSON array, written change by change: there may be millions."""
    separator = "["
    async for change in changes:
        say_raw(f"{separator}\n  {json.dumps(asdict(PendingChange.of(change)))}", end="")
        separator = ","
    say("\n]" if separator == "," else "[]")


async def _print_table(changes: AsyncIterator[QueuedChange]) -> None:
    """Print pages, each with its own column widths: there may be millions of rows."""
    head = ("id", "completion", "change_id", "mode", "keys", "enqueued", "batch")
    rows: list[tuple[str, ...]] = []
    async for change in changes:
        rows.append(_row(change))
        if len(rows) == _PAGE_LENGTH:
            say(table([head, *rows], right=(0,)))
            rows.clear()
    if rows:
        say(table([head, *rows], right=(0,)))


def _row(change: QueuedChange) -> tuple[str, ...]:
    metadata = _decoded(change.metadata)
    keys = ",".join(metadata) if isinstance(metadata, dict) else ""
    enqueued_at = time_text(change.enqueued_at)
    return (
        str(change.number),
        change.completion_id,
        change.change_id or "",
        change.mode,
        keys,
        enqueued_at,
        change.batch or "",
    )


def _decoded(text: str) -> Any:  # noqa: ANN401 -- whatever was stored
    """The decoded metadata; the text if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
