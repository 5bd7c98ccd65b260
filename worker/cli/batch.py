"""`metasync batch`: list, show, wait for and withdraw batches."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

from config.durations import duration_seconds
from worker.cli import loop
from worker.cli.batches import NO_SUCH_BATCH, BatchState, find, quoted
from worker.cli.dead import HEAD, Letter, letter_row
from worker.cli.exits import Exit
from worker.cli.failing import failing_as_json
from worker.cli.flags import Configured, Prints
from worker.cli.output import age_text, report, report_json, say, say_json, table
from worker.cli.verbs import Action
from worker.cli.waiting import Waited, wait_for, words_of
from worker.cli.withdrawing import YES, Withdrawal, withdraw
from worker.flags import Flag
from worker.queue import DeadLetter, DeadSelection, PendingSelection, Store, open_queue

_SAMPLE = 5
_COUNTED = 10_000  # letters whose reasons are counted: the first ones of a batch of millions are enough

_NAME = Flag("the batch", positional=True)


@dataclass(frozen=True, slots=True)
class BatchStory:
    """A batch, and its dead letters.

    Args:
        batch: null if it is not there, or cannot be read.
        reasons: dead letters by reason, of the first 10,000 that are there.
        letters: the first five of them.
        error: why it is not shown; null if it is.
    """

    batch: BatchState | None
    exit_code: Exit = Exit.DONE
    reasons: Mapping[str, int] = field(default_factory=dict)
    letters: Sequence[Letter] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class List(Configured):
    """The arguments of `list`."""

    json: Annotated[bool, Flag("machine-readable"), Prints(list[BatchState])] = False


@dataclass(frozen=True, slots=True)
class Named(Configured):
    """The arguments that name a batch."""

    name: Annotated[str, _NAME]


@dataclass(frozen=True, slots=True)
class Show(Named):
    """The arguments of `show`."""

    json: Annotated[bool, Flag("one JSON object"), Prints(BatchStory)] = False


@dataclass(frozen=True, slots=True)
class Wait(Named):
    """The arguments of `wait`."""

    timeout: Annotated[
        float | None, Flag("wait no longer than that, such as 15m", metavar="DURATION", parse=duration_seconds)
    ] = None
    json: Annotated[bool, Flag("one JSON object"), Prints(Waited)] = False


@dataclass(frozen=True, slots=True)
class Withdraw(Named):
    """The arguments of `withdraw`."""

    yes: Annotated[bool, YES] = False
    json: Annotated[bool, Flag("one JSON object"), Prints(Withdrawal)] = False


MODEL = {
    "list": Action("one line a batch, the newest first", List),
    "show": Action("what became of its changes, with reasons and the first of its dead letters", Show),
    "wait": Action("wait until none of its changes is pending; exit codes as of `apply`", Wait),
    "withdraw": Action("take back those of its changes that are pending", Withdraw),
}


def execute(arguments: Configured) -> int:
    """Carry out the action."""
    match arguments:
        case Withdraw():
            selection = PendingSelection(batch=arguments.name)
            return withdraw(arguments, selection, yes=arguments.yes, json=arguments.json)
        case Wait():
            with failing_as_json(lambda error, code: Waited(None, code, error=error), wanted=arguments.json):
                return _run(arguments)
        case Show():
            with failing_as_json(lambda error, code: BatchStory(None, code, error=error), wanted=arguments.json):
                return _run(arguments)
        case _:
            return _run(arguments)


def _run(arguments: Configured) -> int:
    settings = arguments.load().settings
    return loop.run(_act(settings.queue_url, settings.store_timeout, arguments))


async def _act(url: str, timeout_seconds: float, arguments: Configured) -> int:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        match arguments:
            case List():
                _list([BatchState.of(batch) for batch in await queue.batches()], json=arguments.json)
            case Show():
                return await _show(queue, arguments.name, json=arguments.json)
            case Wait():
                return await _wait(queue, arguments)
    return Exit.DONE


def _list(batches: Sequence[BatchState], *, json: bool) -> None:
    if json:
        say_json(batches)
    elif batches:
        say(_table(batches))


def _table(batches: Sequence[BatchState]) -> str:
    """A line for each batch; a column with only 0 is left out."""
    counts = [
        name
        for name in ("changes", "pending", "applied", "unchanged", "superseded", "dead", "withdrawn")
        if name in ("changes", "pending") or any(getattr(batch, name) for batch in batches)
    ]
    head = ("batch", "since", *counts, "rate", "left")
    rows = [
        (batch.name, batch.created_at[:19] + "Z", *[f"{getattr(batch, each):,}" for each in counts], *_pace(batch))
        for batch in batches
    ]
    return table([head, *rows], right=range(2, len(head)))


def _pace(batch: BatchState) -> tuple[str, str]:
    """The speed, and how long the rest takes."""
    rate = "" if batch.per_second is None else f"{batch.per_second:,.1f}/s"
    if not batch.pending:
        return rate, "done"
    return rate, "?" if batch.seconds_left is None else age_text(batch.seconds_left)


async def _show(queue: Store, name: str, *, json: bool) -> int:
    batch = await find(queue, name)
    if batch is None:
        if json:
            say_json(BatchStory(None, Exit.NOT_ALL, error=NO_SUCH_BATCH))
        return Exit.NOT_ALL
    reasons: Counter[str] = Counter()
    letters: list[DeadLetter] = []
    async for letter in queue.dead_letters(DeadSelection(batch=batch.name)):
        reasons[letter.reason] += 1
        if len(letters) < _SAMPLE:
            letters.append(letter)
        if reasons.total() == _COUNTED:
            break
    state = BatchState.of(batch)
    if json:
        say_json(BatchStory(state, reasons=reasons, letters=[Letter.of(letter) for letter in letters]))
    else:
        say(_story_text(state, reasons, letters))
    return Exit.DONE


def _story_text(state: BatchState, reasons: Mapping[str, int], letters: Sequence[DeadLetter]) -> str:
    rate, left = _pace(state)
    told = asdict(state) | {"per_second": rate, "seconds_left": left}
    names = {"per_second": "rate", "seconds_left": "left", "name": "batch"}
    rows = [
        (names.get(name, name), f"{value:,}" if isinstance(value, int) else value or "") for name, value in told.items()
    ]
    parts = [table(rows)]
    if letters:
        most = " or more" if sum(reasons.values()) == _COUNTED else ""
        parts.append(", ".join(f"{count:,}{most} {reason}" for reason, count in sorted(reasons.items())))
        parts.append(table([HEAD, *map(letter_row, letters)], right=(0, 3, 4)))
        parts.append(f"`metasync dead list --batch {quoted(state.name)}` shows all")
    return "\n".join(parts)


async def _wait(queue: Store, arguments: Wait) -> int:
    batch = await find(queue, arguments.name)
    if batch is None:
        if arguments.json:
            report_json(Waited(None, Exit.NOT_ALL, error=NO_SUCH_BATCH))
        return Exit.NOT_ALL
    waited = await wait_for(queue, batch.name, arguments.timeout)
    if arguments.json:
        report_json(waited)
    else:
        report(words_of(waited, batch.name))
    return waited.exit_code
