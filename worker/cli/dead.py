"""`metasync dead`: list, show, retry and purge dead letters."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol, Self, TypeVar

from config.durations import duration_seconds
from worker.cli import loop, signals
from worker.cli.batches import find
from worker.cli.exits import Exit
from worker.cli.flags import Configured, Prints
from worker.cli.output import as_of_text, counted, say, say_json, say_raw, table, tell, time_text
from worker.cli.verbs import Action
from worker.flags import Flag
from worker.queue import DeadLetter, DeadLetters, DeadSelection, QueueUnavailable, Reason, Revived, Store, open_queue
from worker.queue.text import storable
from worker.terminal import printable_json

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_SHOWN_ERROR_LENGTH = 60
HEAD = ("id", "completion", "reason", "status", "attempts", "died", "error")
_NUMBERS_END = 2**63  # the largest number that a store can be asked for


def _number_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < _NUMBERS_END):
        raise ValueError(f"{text!r} is no letter's number")
    return int(text)


def _age_of(text: str) -> float:
    """An age with its unit. 30 alone hardly means half a minute, and purged letters are gone."""
    seconds = duration_seconds(text)
    if seconds and text.strip()[-1].isdigit():
        raise ValueError(f"must have a unit, such as {text.strip()}d: a number alone would be seconds")
    if not seconds:
        raise ValueError("must be more than nothing: --all is how to say every letter")
    return seconds


def _ago_of(text: str) -> float:
    """How many seconds ago it was, from an age or a time."""
    with suppress(ValueError):
        return _age_of(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a duration, such as 2h, or a time, such as 2026-11-28T10:15Z") from None
    try:
        seconds = datetime.now(UTC).timestamp() - time.timestamp()  # without a zone it is the local time
    except (ValueError, OverflowError, OSError):
        raise ValueError("must be a time that a clock can show") from None
    if seconds <= 0:
        raise ValueError("must be in the past")
    return seconds


_SINCE = Flag("only those that died since, such as 2h (ago) or 2026-11-28T10:15Z", metavar="TIME", parse=_ago_of)


@dataclass(frozen=True, slots=True)
class Letter:
    """A change that was given up, and why. Times are in UTC, in RFC 3339's form.

    Args:
        id: the letter's own number, by which it is shown, retried and purged.
        metadata: the change's metadata; for an invalid change, the stored text.
        status: of the service's last answer.
        request_id: of the same answer.
        attempts: the failed attempts.
        as_of: when the change was true; null if the producer did not say.
        batch: the batch that it belongs to; null for none.
    """

    id: int
    completion_id: str
    change_id: str | None
    metadata: Any
    mode: str
    reason: str
    status: int | None
    error: str | None
    request_id: str | None
    attempts: int
    enqueued_at: str
    died_at: str
    as_of: str | None
    batch: str | None

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """Convert the store's form."""
        return cls(
            id=letter.number,
            completion_id=letter.completion_id,
            change_id=letter.change_id,
            metadata=letter.decoded,
            mode=letter.mode,
            reason=letter.reason,
            status=letter.status,
            error=letter.error,
            request_id=letter.request_id,
            attempts=letter.attempts,
            enqueued_at=time_text(letter.enqueued_at),
            died_at=time_text(letter.died_at),
            as_of=as_of_text(letter.as_of),
            batch=letter.batch,
        )


@dataclass(frozen=True, slots=True)
class Purged:
    """How many letters were deleted."""

    purged: int


@dataclass(frozen=True, slots=True)
class Letters(Configured):
    """The arguments that name letters."""

    number: Annotated[tuple[int, ...], Flag("letters by number", positional=True, parse=_number_of)] = ()
    reason: Annotated[Reason | None, Flag("only those that died for this reason")] = None
    completion: Annotated[str | None, Flag("only those of this completion", metavar="ID")] = None
    batch: Annotated[str | None, Flag("only those of this batch", metavar="NAME")] = None
    older_than: Annotated[
        float | None, Flag("only those that died longer ago, such as 30d", metavar="DURATION", parse=_age_of)
    ] = None


@dataclass(frozen=True, slots=True)
class Deliberate(Letters):
    """The arguments of an action for which letters have to be named."""

    all: Annotated[bool, Flag("every letter there is")] = False


@dataclass(frozen=True, slots=True)
class List(Letters):
    """The arguments of `list`."""

    since: Annotated[float | None, _SINCE] = None
    json: Annotated[bool, Flag("machine-readable"), Prints(list[Letter])] = False


@dataclass(frozen=True, slots=True)
class Show(Deliberate):
    """The arguments of `show`."""

    since: Annotated[float | None, _SINCE] = None
    json: Annotated[bool, Flag("machine-readable"), Prints(list[Letter])] = False


@dataclass(frozen=True, slots=True)
class Retry(Deliberate):
    """The arguments of `retry`."""

    since: Annotated[float | None, _SINCE] = None
    json: Annotated[bool, Flag("machine-readable"), Prints(Revived)] = False


@dataclass(frozen=True, slots=True)
class Purge(Deliberate):
    """The arguments of `purge`."""

    json: Annotated[bool, Flag("machine-readable"), Prints(Purged)] = False


MODEL = {
    "list": Action("one line a letter, oldest first", List),
    "show": Action("everything about the letters, metadata values included", Show),
    "retry": Action("make the changes pending again", Retry),
    "purge": Action("delete the letters for good", Purge),
}


def execute(arguments: Letters) -> int:
    """Carry out the action on the letters that were named."""
    selection = DeadSelection(
        numbers=arguments.number or None,
        completion_id=arguments.completion,
        reason=arguments.reason,
        older_than_seconds=arguments.older_than,
        within_seconds=arguments.since if isinstance(arguments, List | Show | Retry) else None,
        batch=storable(arguments.batch),
    )
    if isinstance(arguments, Deliberate) and not _is_deliberate(selection, everything=arguments.all):
        action = next(name for name, action in MODEL.items() if isinstance(arguments, action.model))
        tell(f"metasync dead {action}: name letters, {_conditions(arguments)}, or say --all (not both)")
        return Exit.USAGE
    settings = arguments.load().settings
    return loop.run(_act(settings.queue_url, settings.store_timeout, arguments, selection))


def _conditions(arguments: Letters) -> str:
    since = ", --since" if isinstance(arguments, Show | Retry) else ""
    return f"--reason, --completion, --batch{since} or --older-than"


def _is_deliberate(selection: DeadSelection, *, everything: bool) -> bool:
    return everything == (selection == DeadSelection())


async def _act(url: str, timeout_seconds: float, arguments: Letters, selection: DeadSelection) -> int:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        missing = await _missing(queue, selection)
        is_known = selection.batch is None or await _is_known(queue, selection.batch)
        is_whole = True
        match arguments:
            case List(json=True) | Show(json=True):
                await _print_json(queue, selection)
            case List():
                await _print_list(queue, selection)
            case Show():
                await _show(queue, selection)
            case Retry():
                tell_of_it = say_json if arguments.json else _tell_of
                is_whole = await _to_the_end(queue.retry_dead, selection, Revived(0, 0), tell_of_it)
            case Purge():
                print_it = _print_purged if arguments.json else _tell_of_purged
                is_whole = await _to_the_end(queue.purge_dead, selection, 0, print_it)
    if not is_whole:
        tell("interrupted: run the same command again to continue")
        return Exit.RUN_AGAIN
    if missing:
        tell(f"no such dead letter: {', '.join(map(str, missing))}")
        return Exit.NOT_ALL
    return Exit.DONE if is_known else Exit.NOT_ALL


async def _is_known(queue: Store, batch: str) -> bool:
    """Whether there is such a batch, or was: letters keep the name of a deleted one. Otherwise an error says so."""
    if await queue.batches(batch) or await anext(queue.dead_letters(DeadSelection(batch=batch)), None) is not None:
        return True
    return await find(queue, batch) is not None


async def _missing(queue: DeadLetters, selection: DeadSelection) -> list[int]:
    """The named letters that are missing, or do not match the other conditions."""
    if not selection.numbers:
        return []
    there = {letter.number async for letter in queue.dead_letters(selection)}
    return [number for number in dict.fromkeys(selection.numbers) if number not in there]


class _Work(Protocol[T_co]):
    """The signature of `retry_dead`, which works piece by piece."""

    async def __call__(self, selection: DeadSelection, *, go_on: Callable[[T_co], bool]) -> T_co: ...


async def _to_the_end(work: _Work[T], selection: DeadSelection, nothing: T, show: Callable[[T], object]) -> bool:
    """Do it, and show the result, also if it fails; return whether all letters were handled, or a signal came."""
    so_far, is_whole = nothing, True
    stop = asyncio.Event()

    def go_on(done: T) -> bool:
        nonlocal so_far, is_whole
        so_far, is_whole = done, not stop.is_set()
        return is_whole

    with signals.stopping(
        stop.set, lambda: "interrupted twice: some may be done; run the same command again to continue"
    ):
        try:
            so_far = await work(selection, go_on=go_on)
        except QueueUnavailable:
            if so_far != nothing:
                show(so_far)
            raise
    show(so_far)
    return is_whole


def _print_purged(purged: int) -> None:
    say_json(Purged(purged))


def _tell_of_purged(purged: int) -> None:
    say(f"{purged} purged")


def _tell_of(revived: Revived) -> None:
    """Say what happened to the letters, and why some stay dead."""
    superseded = f", {revived.superseded} superseded" if revived.superseded else ""
    say(f"{revived.retried} retried, {revived.kept} kept{superseded}")
    if revived.kept:
        kept = counted(revived.kept, "letter")
        tell(f"{kept} not retried: a change with the same change_id is pending, or was applied since")
    if revived.superseded:
        numbers = ", ".join(map(str, revived.superseded_numbers))
        more = ", ..." if revived.superseded > len(revived.superseded_numbers) else ""
        tell(f"superseded: a newer change of the same completion, by as_of, was applied since; letters {numbers}{more}")


async def _print_json(queue: DeadLetters, selection: DeadSelection) -> None:
    """One JSON array, written letter by letter: there may be millions."""
    separator = "["
    async for letter in queue.dead_letters(selection):
        say_raw(f"{separator}\n  {json.dumps(asdict(Letter.of(letter)))}", end="")
        separator = ","
    say("\n]" if separator == "," else "[]")


async def _print_list(queue: DeadLetters, selection: DeadSelection) -> None:
    """A table in pages, each with its own column widths: there may be millions of rows."""
    page_length = 1_000
    rows: list[tuple[str, ...]] = []
    async for letter in queue.dead_letters(selection):
        rows.append(letter_row(letter))
        if len(rows) == page_length:
            say(table([HEAD, *rows], right=(0, 3, 4)))
            rows.clear()
    if rows:
        say(table([HEAD, *rows], right=(0, 3, 4)))


def letter_row(letter: DeadLetter) -> tuple[str, ...]:
    """A letter as a row of a table, under `HEAD`."""
    error = " ".join((letter.error or "").split())
    return (
        str(letter.number),
        letter.completion_id,
        letter.reason,
        "" if letter.status is None else str(letter.status),
        str(letter.attempts),
        time_text(letter.died_at),
        error if len(error) <= _SHOWN_ERROR_LENGTH else f"{error[: _SHOWN_ERROR_LENGTH - 1]}…",
    )


async def _show(queue: DeadLetters, selection: DeadSelection) -> None:
    found = False
    async for letter in queue.dead_letters(selection):
        if found:
            say("")
        found = True
        fields = asdict(Letter.of(letter))
        fields["metadata"] = printable_json(json.dumps(fields["metadata"], ensure_ascii=False))
        say(table([(name, "" if value is None else str(value)) for name, value in fields.items()]))
