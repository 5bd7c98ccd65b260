"""`metasync dead`: the dead letters, looked at, sent back or thrown away."""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any

from worker.cli.exits import Exit
from worker.cli.flags import add_settings, load_settings
from worker.cli.output import say, say_json, table, tell
from worker.queue import Queue, open_queue
from worker.queue.base import REASONS, DeadLetter, DeadSelection

_SHOWN_ERROR_LENGTH = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("list", "one line a letter, oldest first"),
        ("show", "everything about the letters, metadata values included"),
        ("retry", "make the changes pending again"),
        ("purge", "delete the letters for good"),
    ):
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        action.add_argument("number", nargs="*", type=int, help="letters by number")
        action.add_argument("--reason", choices=REASONS, help="only those that died for this reason")
        action.add_argument("--completion", metavar="ID", help="only those of this completion")
        action.add_argument("--json", action="store_true", help="machine-readable")
        if name != "list":
            action.add_argument("--all", action="store_true", help="every letter there is")
        add_settings(action, "queue_url", "store_timeout")


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the action on the letters that were named."""
    selection = DeadSelection(
        numbers=tuple(arguments.number) or None,
        completion_id=arguments.completion,
        reason=arguments.reason,
    )
    if arguments.action != "list" and not _is_deliberate(selection, everything=arguments.all):
        tell(f"metasync dead {arguments.action}: name letters, --reason or --completion, or say --all (not both)")
        return Exit.USAGE
    settings = load_settings(arguments).settings
    return asyncio.run(_act(settings.queue_url, settings.store_timeout, arguments, selection))


def _is_deliberate(selection: DeadSelection, *, everything: bool) -> bool:
    return everything == (selection == DeadSelection())


async def _act(url: str, timeout_seconds: float, arguments: argparse.Namespace, selection: DeadSelection) -> int:
    async with open_queue(url, timeout_seconds=timeout_seconds) as queue:
        match arguments.action:
            case "list" | "show" if arguments.json:
                await _print_json(queue, selection)
            case "list":
                await _print_list(queue, selection)
            case "show":
                return await _show(queue, selection)
            case "retry":
                revived = await queue.retry_dead(selection)
                _report(arguments, {"retried": revived.retried, "kept": revived.kept})
                if revived.kept and not arguments.json:
                    tell(f"{revived.kept} letters stay dead: a change with the same change_id is pending")
            case "purge":
                _report(arguments, {"purged": await queue.purge_dead(selection)})
    return Exit.DONE


def _report(arguments: argparse.Namespace, counts: dict[str, int]) -> None:
    if arguments.json:
        say_json(counts)
    else:
        say(", ".join(f"{count} {what}" for what, count in counts.items()))


async def _print_json(queue: Queue, selection: DeadSelection) -> None:
    """One JSON array, written letter by letter: there may be millions."""
    separator = "["
    async for letter in queue.dead_letters(selection):
        sys.stdout.write(f"{separator}\n  {json.dumps(_as_json(letter))}")
        separator = ","
    say("\n]" if separator == "," else "[]")


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.number,
        "completion_id": letter.completion_id,
        "change_id": letter.change_id,
        "metadata": _metadata(letter),
        "mode": letter.mode,
        "reason": letter.reason,
        "status": letter.status,
        "error": letter.error,
        "request_id": letter.request_id,
        "attempts": letter.attempts,
        "enqueued_at": _time_text(letter.enqueued_at),
        "died_at": _time_text(letter.died_at),
    }


def _metadata(letter: DeadLetter) -> Any:  # noqa: ANN401 -- an invalid letter holds whatever was stored
    try:
        return json.loads(letter.metadata)
    except ValueError:
        return letter.metadata


def _time_text(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _print_list(queue: Queue, selection: DeadSelection) -> None:
    """A table, in pages that are aligned each by itself: there may be millions."""
    page_length = 1_000
    header = ("id", "completion", "reason", "status", "attempts", "died", "error")
    rows: list[tuple[str, ...]] = []
    async for letter in queue.dead_letters(selection):
        rows.append(_row(letter))
        if len(rows) == page_length:
            say(table([header, *rows], right=(0, 3, 4)))
            rows.clear()
    if rows:
        say(table([header, *rows], right=(0, 3, 4)))


def _row(letter: DeadLetter) -> tuple[str, ...]:
    error = " ".join((letter.error or "").split())
    return (
        str(letter.number),
        letter.completion_id,
        letter.reason,
        "" if letter.status is None else str(letter.status),
        str(letter.attempts),
        _time_text(letter.died_at),
        error if len(error) <= _SHOWN_ERROR_LENGTH else f"{error[: _SHOWN_ERROR_LENGTH - 1]}…",
    )


async def _show(queue: Queue, selection: DeadSelection) -> int:
    found = False
    async for letter in queue.dead_letters(selection):
        if found:
            say("")
        found = True
        fields = _as_json(letter)
        fields["metadata"] = json.dumps(fields["metadata"], ensure_ascii=False)
        say(table([(name, "" if value is None else str(value)) for name, value in fields.items()]))
    if not found:
        tell("no such dead letter")
        return Exit.USAGE
    return Exit.DONE
