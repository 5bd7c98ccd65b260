"""What `pull` and `diff` share: read requests with progress, ended in order."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import structlog
from tqdm import tqdm

from config import sink
from config.settings import Loaded
from worker.api import Client
from worker.changes import MetadataChange
from worker.changes.files import Reading, Refusal
from worker.changes.patience import Patience
from worker.cli.calling import client_of, collect_less, key_reader
from worker.cli.exits import Exit
from worker.cli.flags import Configured
from worker.cli.inputs import InputError, Inputs, Intake
from worker.cli.job import Job, configure_logs, key_of
from worker.cli.output import age_text
from worker.cli.pieces import pieces
from worker.cli.progress import Terminal, progress_line
from worker.cli.refused import Shown
from worker.cli.tracing import Tracing
from worker.cli.words import ending_words, flow_words
from worker.engine import Ending
from worker.flow import GateState
from worker.sync.asking import Asking, Terms, Unfinished
from worker.terminal import columns, is_terminal
from worker.terminal import shown as quoted

T = TypeVar("T")

_REFRESH_SECONDS = 0.2


@dataclass  # without slots: a report has two bases, and only one of them may have slots
class SyncReport:
    """How the command ended.

    Args:
        requests: sent to the service.
        retries: requests that were retried after a failure.
        throttled: 429 answers about the rate.
        ending: why it ended early; null if it did not.
        halted: the reason of the halt, if a halt ended it.
        error: the service's message about the halt, or why the command did nothing.
        left: the first few completions that could not be read, with their errors.
        closed_for_seconds: how much longer the service asks to wait.
    """

    exit_code: Exit = Exit.DONE
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    seconds: float = 0.0
    ending: Ending | None = None
    halted: str | None = None
    error: str | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    closed_for_seconds: float = 0.0

    def end(self, asked: Asking, unfinished: Unfinished | None, started_at: float, *, is_all: bool) -> None:
        """Fill in how the requests went.

        Args:
            unfinished: why they ended early; None if they did not.
            started_at: monotonic seconds.
            is_all: whether nothing differs, is missing or was refused.
        """
        state = asked.state()
        self.requests, self.retries, self.throttled = state.requests, asked.retries, state.throttled
        self.seconds = round(time.monotonic() - started_at, 3)
        self.exit_code = Exit.DONE if is_all else Exit.NOT_ALL
        if unfinished is None:
            return
        self.exit_code = code_of(unfinished)
        self.ending, self.left = unfinished.ending, unfinished.left
        self.closed_for_seconds = round(unfinished.closed_for_seconds, 1)
        if unfinished.cause is not None:
            self.halted, self.error = unfinished.cause.reason, unfinished.cause.error


def prepared(arguments: Configured, *, shown: bool) -> tuple[Job, bool]:
    """Set up the log; return the command's job, and whether to show progress.

    Args:
        shown: whether progress may be shown, if there is a terminal.

    Raises:
        ConfigurationError: a setting is invalid, or the key is missing.
    """
    loaded: Loaded = arguments.load()
    settings = loaded.settings
    key_of(settings)
    has_terminal = sys.stderr is not None and is_terminal(sys.stderr) and settings.log_format != "json"
    terminal = Terminal() if shown and has_terminal else None
    quiet = terminal is not None and loaded.origins["log_level"] == "default"
    configure_logs(settings, level="error" if quiet else None, terminal=terminal)
    return Job(settings, arguments.load, drain=True, warning=loaded.led_astray), terminal is not None


def stdout_is_terminal() -> bool:
    """Whether standard output is a terminal, where a progress line would be in the way."""
    return sys.stdout is not None and is_terminal(sys.stdout)


@asynccontextmanager
async def asking(job: Job) -> AsyncIterator[tuple[Asking, Client]]:
    """Yield the reader of completions, and its client."""
    settings = job.settings
    collect_less()
    if job.warning:
        structlog.get_logger().warning("settings.key_led_astray", error=job.warning)
    async with client_of(settings, Tracing()) as client:
        terms = Terms(
            max_concurrency=settings.max_concurrency,
            requests_per_minute=settings.requests_per_minute,
            request_timeout_seconds=settings.request_timeout,
            halt_timeout_seconds=settings.halt_timeout,
        )
        yield Asking(terms, read_key=key_reader(client, job)), client


async def shown_while(asked: Asking, words: Callable[[float], Sequence[str]], work: Coroutine[Any, Any, T]) -> T:
    """Run the work, with a progress line on the terminal.

    Args:
        words: returns the line's parts after so many seconds, the most important first.
    """
    showing = asyncio.create_task(_show(asked, words))
    try:
        return await asked.run(work)
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _show(asked: Asking, words: Callable[[float], Sequence[str]]) -> None:
    started_at = time.monotonic()
    bar: tqdm[NoReturn]
    with tqdm(bar_format="{desc}", file=sink.stream, leave=False) as bar:
        while True:
            flow = asked.state()
            of_flow = flow_words(flow)
            is_urgent = flow.gate is not GateState.OPEN or flow.slowed_by is not None
            urgent = [of_flow.pop(0)] if is_urgent else []
            line = [*urgent, *words(time.monotonic() - started_at), *of_flow]
            bar.set_description_str(progress_line(line, columns()))
            await asyncio.sleep(_REFRESH_SECONDS)


def above_progress(*, shown: bool) -> AbstractContextManager[None]:
    """Allow lines above the progress line."""
    return tqdm.external_write_mode(file=sink.stream) if shown else nullcontext()


def how_far(done: int, total: int | None, seconds: float) -> str:
    """Describe the progress: completions done, total, speed, and time left."""
    text = f"{done:,}{f'/{total:,}' if total is not None else ''} completions"
    if not done or not seconds:
        return text
    left = max(0, (total or 0) - done)
    rest = f", {age_text(left * seconds / done)} left" if left else ""
    return f"{text}, {done / seconds:,.0f}/s{rest}"


def code_of(unfinished: Unfinished) -> Exit:
    """Return the exit code: running again helps, or a person must act."""
    return Exit.HALTED if unfinished.ending is Ending.HALTED else Exit.RUN_AGAIN


def sentence_of(unfinished: Unfinished) -> str:
    """Describe why it ended, with the first few failures."""
    left = [f"left: {name}: {error}" for name, error in unfinished.left.items()]
    why = ending_words(unfinished.ending, unfinished.cause, unfinished.closed_for_seconds)
    return "\n".join((*left, f"not finished ({why})"))


async def gather(paths: Sequence[str], reading: Reading, take: Callable[[list[MetadataChange]], Sequence[int]]) -> int:
    """Read files of changes and pass them on in pieces; show refused lines, and return their number.

    Args:
        take: returns the indices of changes that differ from an earlier one with the same `change_id`.

    Raises:
        InputError: one of the files cannot be used.
    """
    shown, refused = Shown(), 0
    with closing(Patience()) as patience:
        try:
            inputs = Inputs(Intake(paths, reading), patience)
        except InputError as error:
            raise InputError(str(error).removesuffix("\nnothing was stored")) from None
        with closing(inputs):
            async with pieces(inputs, patience) as stream:
                async for piece in stream:
                    refused += len(piece.refused)
                    for refusal in piece.refused:
                        shown.add(refusal)
                    for position in take(piece.changes):
                        refused += 1
                        file, line = piece.places[position]
                        change_id = quoted(str(piece.changes[position].change_id))
                        shown.add(Refusal(file, line, f"change_id {change_id} came before, with other content"))
    shown.end(has_file=True)
    return refused
