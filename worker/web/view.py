"""The page's document: the state of the queue and all workers, and this worker's last outcomes."""

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import msgspec

from worker.engine import Worker
from worker.flow import FlowState, parse_state
from worker.queue import Batch, DeadLetter, HistoryMinute, Note, QueueStatus, Sample, Store
from worker.queue.notes import at_work, limit_in
from worker.web.depth import Asked
from worker.web.words import state_of

_MINUTES = 60
_RUNNING_SHOWN, _FINISHED_SHOWN = 20, 5
_SPEED_SECONDS = 10.0
_MASK = "\N{BULLET}\N{BULLET}\N{BULLET}"
_MOST_SHOWN = 1_000  # characters of a text other than metadata


class View:
    """Builds the document.

    Args:
        status: the queue's cached status.
        timeout_seconds: longest wait for the store.
        clock: monotonic, seconds.
        unix_clock: Unix time, seconds.
    """

    def __init__(
        self,
        worker: Worker,
        queue: Store,
        status: Asked[QueueStatus],
        *,
        timeout_seconds: float,
        show_values: bool,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self._worker = worker
        self._queue = queue
        self._status = status
        self._show_values = show_values
        self._clock = clock
        self._unix_clock = unix_clock
        self._history = Asked("history", lambda: queue.history(_MINUTES), timeout_seconds=timeout_seconds, clock=clock)
        self._notes = Asked("notes", queue.read_notes, timeout_seconds=timeout_seconds, clock=clock)
        self._reasons = Asked("reasons", queue.dead_reasons, timeout_seconds=timeout_seconds, clock=clock)
        self._batches = Asked("batches", queue.batches, timeout_seconds=timeout_seconds, clock=clock)
        self._speed = Speed()
        self._last_sample: tuple[int, Sample] | None = None  # with its minute

    def __repr__(self) -> str:
        return f"<View of {self._worker!r}>"

    def forget_letters(self) -> None:
        """Drop cached figures after dead letters were replayed or purged."""
        self._reasons.forget()
        self._status.forget()

    async def document(self) -> bytes:
        """Return the document as JSON."""
        status = await self._status.look()
        history = await self._history.look()
        reasons = await self._reasons.look()
        batches = await self._batches.look()
        workers = _workers(await self._notes.look() or {})
        flow = self._worker.flow_state()
        per_second = self._speed.look(history, self._clock())
        now = self._unix_clock()
        state = state_of(
            flow,
            status,
            now=now,
            per_second=per_second,
            stopping=self._worker.stopping,
            standstill=self._worker.standstill(),
            store_error=self._status.error,
        )
        shown: dict[str, Any] = {
            "at": now,
            "version": version("metasync"),
            "state": asdict(state),
            "per_second": per_second,
            "queue": None if status is None else asdict(status),
            "workers": {name: asdict(each) for name, each in workers.items()},
            "history": None if history is None else [_row(minute) for minute in history],
            "latest": list(self._worker.tallies.latest),
            "batches": None if batches is None else [_told(batch) for batch in _to_show(batches)],
            "reasons": None
            if reasons is None
            else {reason: msgspec.structs.asdict(count) for reason, count in reasons.items()},
            "trouble": self._status.error or self._history.error or self._reasons.error or self._batches.error,
        }
        return json_bytes(shown)

    def letter(self, letter: DeadLetter) -> dict[str, Any]:
        """Return a dead letter as it may be shown. Metadata that is no object is a value as a whole."""
        metadata = letter.decoded
        if isinstance(metadata, dict):
            pairs = {key: value if self._show_values or value is None else _MASK for key, value in metadata.items()}
            return asdict(letter) | {"metadata": pairs, "odd": None}
        odd = letter.metadata[:_MOST_SHOWN] if self._show_values else _MASK
        return asdict(letter) | {"metadata": {}, "odd": odd}

    async def sample(self) -> None:
        """Store a sample of the state in the queue, for the page's history.

        Raises:
            QueueError: the queue did not store it.
        """
        status = await self._status.look()
        if status is None:
            return
        notes = await self._notes.look() or {}
        rate = sum(flow.rate_per_second for flow in _workers(notes).values())
        limit = limit_in(notes)
        per_second = limit.per_second if limit else None
        sample = Sample(status.pending, status.oldest_pending_seconds, rate, per_second)
        last = int(self._unix_clock() // 60), sample
        if last != self._last_sample:  # write rarely to an idle queue
            await self._queue.record_sample(sample)
            self._last_sample = last


class Speed:
    """Finished changes per second over all workers, from the growth of the history."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}
        self._total = 0
        self._looks: deque[tuple[float, int]] = deque()

    def __repr__(self) -> str:
        return f"<Speed [{len(self._looks)} looks]>"

    def look(self, history: Sequence[HistoryMinute] | None, now: float) -> float:
        """Return the speed over the last seconds; after a long gap, over the last minutes.

        Args:
            history: None while the store does not answer: then nothing is known to have grown.
            now: monotonic, seconds.
        """
        while self._looks and self._looks[0][0] < now - _SPEED_SECONDS:
            self._looks.popleft()
        if history is not None:
            done = {
                minute.starts_at: minute.applied + minute.unchanged + minute.superseded + minute.dead
                for minute in history[-2:]
            }
            if self._looks:
                self._total += sum(count - self._before.get(minute, 0) for minute, count in done.items())
            self._before = done
            self._looks.append((now, self._total))
        if not self._looks:
            return 0.0
        then, total = self._looks[0]
        if then == now:
            return sum(self._before.values()) / 90.0  # a full minute, and on average half of the current one
        return max(0.0, (self._total - total) / (now - then))


def json_bytes(what: object) -> bytes:
    """Encode as JSON, also text that is no valid Unicode."""
    try:
        return msgspec.json.encode(what)
    except UnicodeEncodeError:  # half a surrogate pair in stored text; the standard library escapes it
        return json.dumps(msgspec.to_builtins(what)).encode()


def _workers(notes: dict[str, Note]) -> dict[str, FlowState]:
    """Return the active workers by name, except those of a release with another format."""
    states = {name: parse_state(note.text, note.age_seconds) for name, note in at_work(notes).items()}
    return {name: state for name, state in states.items() if state}


def _to_show(batches: Sequence[Batch]) -> list[Batch]:
    """Return the newest running batches, then the newest finished ones."""
    running = [batch for batch in batches if batch.pending][:_RUNNING_SHOWN]
    finished = [batch for batch in batches if not batch.pending][:_FINISHED_SHOWN]
    return [*running, *finished]


def _told(batch: Batch) -> dict[str, Any]:
    rate, left = batch.rate_per_second, batch.seconds_left
    return asdict(batch) | {"pending": batch.pending, "rate_per_second": rate, "seconds_left": left}


def _row(minute: HistoryMinute) -> tuple[float | None, ...]:
    not_sent = minute.unchanged + minute.superseded
    done = (minute.starts_at, minute.applied, not_sent, minute.dead)
    sample = minute.sample
    if sample is None:
        return (*done, None, None, None, None)
    return (*done, sample.pending, sample.oldest_seconds, sample.rate_per_second, sample.limit_per_second)
