"""Wait for a batch by polling the store, while workers apply it."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

from config import sink
from worker.cli import signals
from worker.cli.batches import BatchState, quoted
from worker.cli.exits import Exit
from worker.cli.output import age_text, tell
from worker.cli.paused import Paused
from worker.flow import OUTAGE, FlowState, GateState, parse_state
from worker.queue import Batch, DeadSelection, Note, Pause, QueueUnavailable, Store, pause_of
from worker.queue.notes import PAUSE, at_work
from worker.terminal import columns, is_terminal, printable

_LOOK_SECONDS = 0.5
# A restarting store is back by then; --timeout allows a longer wait.
_AWAY_SECONDS = 60.0


class WaitEnding(StrEnum):
    """Why a wait ended."""

    DONE = "done"
    TIMEOUT = "timeout"
    HALTED = "halted"  # timed out, and all workers are halted until a person acts
    PAUSED = "paused"  # the queue is paused, nothing is in flight, and there is no time-out
    INTERRUPTED = "interrupted"
    STORE_AWAY = "store_away"


@dataclass(frozen=True, slots=True)
class Waited:
    """The result of a wait for a batch.

    Args:
        batch: as last seen; null if it does not exist.
        ending: why the wait ended.
        error: the known obstacle, if the wait ended before the batch was done.
        paused: who paused the queue, if that ended the wait.
    """

    batch: BatchState | None
    exit_code: Exit
    ending: WaitEnding | None = None
    error: str | None = None
    paused: Paused | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one poll of the store shows.

    Args:
        batch: None once it has been forgotten, some time after it was done.
        workers: the state of each, by name; None for one of another release.
    """

    batch: Batch | None
    paused: Paused | None
    workers: Mapping[str, FlowState | None]

    @property
    def halt(self) -> str | None:
        """Return why all workers are halted, if a person must act; else None."""
        causes = [each.cause for each in self.workers.values() if each and each.gate is not GateState.OPEN]
        if not causes or len(causes) < len(self.workers):
            return None
        return next((cause.sentence for cause in causes if cause is not None and cause.reason != OUTAGE), None)

    @property
    def trouble(self) -> str | None:
        """Return what blocks the batch, as far as the store shows."""
        if self.paused is not None:
            return self.paused.sentence
        if not self.workers:
            return "no worker is running"
        causes = [each.cause for each in self.workers.values() if each and each.gate is not GateState.OPEN]
        if causes and len(causes) == len(self.workers):
            return f"halted: {next((cause.sentence for cause in causes if cause), '')}"
        return None


@dataclass(frozen=True, slots=True)
class _Screen:
    """The wait's output: progress, if possible, and permanent lines."""

    show: Callable[[_Seen], None]
    tell: Callable[[str], None]


async def wait_for(queue: Store, name: str, timeout_seconds: float | None, stop: asyncio.Event | None = None) -> Waited:
    """Wait until no change of the batch is pending, a signal arrives, or the time is over.

    If the store becomes unavailable, wait for it: until the time-out or, without one, for a minute.

    Args:
        name: of the batch; an unknown batch has nothing pending.
        timeout_seconds: None for no limit; then a pause ends the wait, once nothing is in flight.
        stop: set if a signal arrived before.
    """
    stop = stop or asyncio.Event()
    with signals.stopping(stop.set, lambda: _way_on(name)), _progress() as screen:
        return await _Waiting(queue, name, timeout_seconds, stop, screen).run()


def words_of(waited: Waited, name: str) -> str:
    """Describe the batch's result and the next step."""
    counts = f"batch {printable(name)}: {waited.batch.counts_text}\n" if waited.batch else ""
    if waited.ending is WaitEnding.DONE:
        if not waited.exit_code or (waited.batch is not None and not waited.batch.dead):
            return f"{counts}done"
        look = "dead list --batch" if waited.batch is None else "batch show"  # only its letters are left
        return f"{counts}done; `metasync {look} {quoted(name)}` shows the dead letters"
    first = "`metasync resume`, then " if waited.paused else ""
    why = str(waited.ending).replace("_", " ")
    if waited.error is not None:  # the error of a pause or a halt names it
        names_itself = waited.ending in (WaitEnding.PAUSED, WaitEnding.HALTED)
        why = waited.error if names_itself else f"{why}: {waited.error}"
    return f"{counts}not finished ({printable(why)}); {_way_on(name, first)}"


def _way_on(name: str, first: str = "") -> str:
    return f"the changes stay in the queue: {first}`metasync batch wait {quoted(name)}` continues"


class _Waiting:
    """The state of a wait."""

    def __init__(
        self, queue: Store, name: str, timeout_seconds: float | None, stop: asyncio.Event, screen: _Screen
    ) -> None:
        self._queue = queue
        self._name = name
        self._last: Batch | None = None
        self._paused: Paused | None = None
        self._started_at = time.monotonic()
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._screen = screen
        self._seen: _Seen | None = None
        self._away_since: float | None = None
        self._error: str | None = None
        self._told: str | None = None

    async def run(self) -> Waited:
        while True:
            waited = await self._look()
            if waited is not None:
                return waited
            seconds = _LOOK_SECONDS
            if (left := self._left()) is not None:
                seconds = min(seconds, left)
            try:
                await asyncio.wait_for(self._stop.wait(), seconds)
            except TimeoutError:
                continue
            return self._waited(WaitEnding.INTERRUPTED)

    async def _look(self) -> Waited | None:
        """Poll once; return the result if the wait has ended."""
        try:
            seen = await self._see()
            ended = await self._ended(seen)
        except QueueUnavailable as error:
            return self._away(str(error))
        if self._away_since is not None:
            self._screen.tell("the queue's store is available again")
        self._away_since, self._error = None, seen.trouble
        if ended is None:
            self._tell_of_trouble(seen)
            if self._left() == 0.0:
                return self._waited(WaitEnding.HALTED if seen.halt else WaitEnding.TIMEOUT)
        return ended

    async def _see(self) -> _Seen:
        found = await self._queue.batches(self._name)
        notes: Mapping[str, Note] = await self._queue.read_notes()
        workers = {name: parse_state(note.text, note.age_seconds) for name, note in at_work(notes).items()}
        seen = _Seen(found[0] if found else None, self._told_first(pause_of(notes.get(PAUSE))), workers)
        if seen.batch is not None:
            self._last = seen.batch
        self._screen.show(seen)
        return seen

    def _told_first(self, pause: Pause | None) -> Paused | None:
        """Return the pause as first seen: its start is computed from its age, and varies by milliseconds."""
        known = self._paused
        if pause is None or known is None or (known.by, known.reason) != pause.words:
            self._paused = Paused.told(pause)
        return self._paused

    async def _ended(self, seen: _Seen) -> Waited | None:
        if seen.batch is None:
            return await self._let_go_of()
        if not seen.batch.pending:
            return self._done(seen.batch)
        if seen.paused is None or self._timeout_seconds is not None:
            return None
        if (await self._queue.status()).in_flight:  # this may still finish the batch
            return None
        waited = self._waited(WaitEnding.PAUSED)
        return replace(waited, error=seen.paused.sentence, paused=seen.paused)

    def _done(self, batch: Batch) -> Waited:
        code = Exit.NOT_ALL if batch.dead or batch.withdrawn else Exit.DONE
        return Waited(BatchState.of(batch), code, WaitEnding.DONE)

    async def _let_go_of(self) -> Waited:
        """Return the result of a forgotten batch: nothing was pending, but dead letters may be left."""
        letters = self._queue.dead_letters(DeadSelection(batch=self._name))
        has_dead = await anext(letters, None) is not None
        was_withdrawn = self._last is not None and self._last.withdrawn
        return Waited(None, Exit.NOT_ALL if has_dead or was_withdrawn else Exit.DONE, WaitEnding.DONE)

    def _away(self, error: str) -> Waited | None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            self._screen.tell(f"metasync: {error}; still waiting")
        self._error = error
        patience_ends = self._timeout_seconds is None and now - self._away_since >= _AWAY_SECONDS
        return self._waited(WaitEnding.STORE_AWAY) if patience_ends or self._left() == 0.0 else None

    def _tell_of_trouble(self, seen: _Seen) -> None:
        """Report what blocks the batch, once for each new obstacle."""
        if seen.trouble != self._told and seen.trouble is not None:
            self._screen.tell(f"the batch waits: {printable(seen.trouble)}")
        self._told = seen.trouble

    def _left(self) -> float | None:
        if self._timeout_seconds is None:
            return None
        return max(0.0, self._timeout_seconds - (time.monotonic() - self._started_at))

    def _waited(self, ending: WaitEnding) -> Waited:
        """Return the result of a wait that ended before the batch was done."""
        code = Exit.HALTED if ending is WaitEnding.HALTED else Exit.RUN_AGAIN
        return Waited(BatchState.of(self._last) if self._last else None, code, ending, self._error)


@contextmanager
def _progress() -> Iterator[_Screen]:
    """Show a progress line on a terminal."""
    if sys.stderr is None or not is_terminal(sys.stderr):
        yield _Screen(_show_nothing, tell)
        return
    from tqdm import tqdm  # noqa: PLC0415 -- slow to import, only for terminals

    from worker.cli.progress import progress_line  # noqa: PLC0415 -- as above

    started_at = time.monotonic()
    done_before: int | None = None

    def show(seen: _Seen) -> None:
        nonlocal done_before
        if seen.batch is not None:
            done_before = seen.batch.done if done_before is None else done_before
            words = _words(seen, seen.batch.done - done_before, time.monotonic() - started_at)
            bar.set_description_str(progress_line(words, columns()))

    def tell_above(text: str) -> None:
        with tqdm.external_write_mode(file=sink.stream):
            tell(text)

    with tqdm(bar_format="{desc}", file=sink.stream, leave=False) as bar:
        yield _Screen(show, tell_above)


def _words(seen: _Seen, done: int, seconds: float) -> list[str]:
    """Return the parts of the line, the most important first, because a narrow terminal cuts the rest.

    Args:
        done: how many were done since the wait began, `seconds` ago.
    """
    assert seen.batch is not None  # noqa: S101 -- a forgotten batch is not shown
    trouble = [seen.trouble] if seen.trouble else []
    text = f"{seen.batch.done:,}/{seen.batch.changes:,} changes"
    if done and seconds and not trouble:
        text += f", {done / seconds:,.0f}/s, {age_text(seen.batch.pending * seconds / done)} left"
    return [*trouble, text, *([f"{seen.batch.dead:,} dead"] if seen.batch.dead else [])]


def _show_nothing(_: _Seen) -> None:
    """Show nothing: there is no terminal."""
