"""Progress on a terminal: one line that updates itself, with the log above it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from io import StringIO
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

from config import sink
from worker.cli.output import age_text
from worker.cli.words import flow_words
from worker.flow import FlowState, GateState
from worker.terminal import columns, printable

if TYPE_CHECKING:
    from worker.engine import Worker  # slow to import, and waiting for a batch does not need it

_REFRESH_SECONDS = 0.2
_LEAST_REASON_COLUMNS = 40  # for a halt's reason, which precedes the progress
_LATER_SECONDS = 2.0  # a shorter wait needs no explanation


class Terminal(StringIO):
    """Standard error for log lines, which appear above the progress line.

    Only whole lines are written, since redrawing the progress line would overwrite an unfinished one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun = ""

    def write(self, text: str) -> int:
        """Write the complete lines above the progress line."""
        lines, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            tqdm.write(lines, file=sink.stream)
        return len(text)


def show_progress(pending: int | None) -> Callable[["Worker"], Coroutine[Any, Any, None]]:
    """Show how far a worker is, until cancelled.

    Args:
        pending: changes to do; None for a daemon.
    """

    async def show(worker: "Worker") -> None:
        started_at = time.monotonic()
        bar: tqdm[NoReturn]
        with tqdm(bar_format="{desc}", file=sink.stream, leave=False) as bar:
            while True:
                words = _words(worker, pending, time.monotonic() - started_at)
                bar.set_description_str(progress_line(words, columns()))
                await asyncio.sleep(_REFRESH_SECONDS)

    return show


def _words(worker: "Worker", pending: int | None, seconds: float) -> list[str]:
    """Return the parts of the line, the most important first, because a narrow terminal cuts the rest."""
    flow = worker.flow_state()
    words = flow_words(flow) if flow else []
    urgent = [words.pop(0)] if flow and _is_urgent(flow) else []
    dead = [f"{worker.totals.dead:,} dead"] if worker.totals.dead else []
    absent, grace_seconds = worker.absent()
    missing = [f"{absent:,} not found yet, given up in {age_text(grace_seconds)}"] if absent else []
    done = how_far(worker.totals.changes, pending, seconds, moves=not urgent)
    due = worker.due_in_seconds()  # of a retry, or when the lease of another worker runs out, which may have died
    later = [f"nothing is due for {age_text(due)}"] if due and due >= _LATER_SECONDS and not urgent else []
    return [*urgent, done, *later, *dead, *words, *missing]


def _is_urgent(flow: FlowState) -> bool:
    return flow.gate is not GateState.OPEN or flow.slowed_by is not None


def how_far(done: int, pending: int | None, seconds: float, *, moves: bool = True) -> str:
    """Describe the progress: changes done, total, speed, and time left.

    Args:
        pending: changes to do at the start; None for a daemon.
        moves: whether the speed so far predicts the rest.
    """
    of_all = f"/{max(done, pending):,}" if pending is not None else ""
    text = f"{done:,}{of_all} changes"
    if not moves or not done or not seconds:
        return text
    text += f", {done / seconds:,.0f}/s"
    left = max(0, (pending or 0) - done)
    return f"{text}, {age_text(left * seconds / done)} left" if left else text


def progress_line(words: list[str], columns: int) -> str:
    """Join the parts on one terminal line; the last column stays free, so that the cursor does not wrap."""
    room = columns - 1
    first, *rest = map(printable, words)
    room_of_first = room - disp_len(rest[0]) - len(", ,…") if rest else room
    first = _cut(first, max(room_of_first, _LEAST_REASON_COLUMNS))
    return _cut(", ".join((first, *rest)), room)


def _cut(text: str, columns: int) -> str:
    if disp_len(text) <= columns:
        return text
    return f"{disp_trim(text, columns - 1)}…" if columns > 0 else ""
