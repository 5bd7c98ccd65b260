"""Shares a worker's state and events with the other workers of its queue, by notes in the store."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from typing import Literal, assert_never

import msgspec

from worker.flow import Flow, FlowState, GateEvent, GateState, parse_state
from worker.queue import Coordination, Note, QueueUnavailable
from worker.queue.notes import EVENT, FRESH_SECONDS, LIMIT, REFRESH_SECONDS, REFUSAL, WORKER, Limit, at_work, limit_in

_EVERY_SECONDS = 1.0
_BEGINNING_SECONDS = 1.0  # so long a worker looks all the time, since others may begin with it, and search with it
_IDLE_PAUSES = 12  # an idle worker looks only each twelfth time
_STATE_SECONDS = 2.0  # between two notes of a state that changes all the time
_SENDING_SECONDS = 5.0  # a worker that has sent nothing for so long, or does not say so any more, is idle or gone
_PAUSE_SECONDS = 0.1  # so that a burst of refusals becomes one note
_LONGEST_DELAY_SECONDS = 86_400.0  # no worker waits for longer
_FORGOTTEN_SECONDS = 600.0  # age at which notes are deleted: each start has a new name, and killed workers leave theirs


def _ignore(*_: object) -> None:
    pass


class Event(msgspec.Struct, frozen=True):
    """Something that concerns every worker.

    Args:
        number: makes the note of each event differ from the note before.
        delay_seconds: how long the service asked to wait.
        reason: of a halt.
    """

    kind: Literal["refused", "paused", "halted", "resumed"]
    number: int
    delay_seconds: float = 0.0
    reason: str = ""


class Sharing:
    """Writes this worker's state and events as notes, and passes the other workers' on to flow control.

    It writes a note when there is news, and otherwise just often enough to show that the worker is alive.

    Args:
        owner: this worker's name.
        clock: monotonic seconds.
        on_notes: called after each read, with all notes by name, and when the store was asked for them.
    """

    def __init__(
        self,
        queue: Coordination,
        owner: str,
        flow: Flow,
        clock: Callable[[], float],
        on_notes: Callable[[Mapping[str, Note], float], None] = _ignore,
    ) -> None:
        self._queue = queue
        self._owner = owner
        self._flow = flow
        self._clock = clock
        self._on_notes = on_notes
        self._numbers = count(time.time_ns())
        self._untold: dict[str, Event] = {}  # by the name of the note: halts and refusals have different ones
        self._news = asyncio.Event()
        self._heard: dict[str, str] = {}
        self._state: FlowState | None = None
        self._limit: float | None = None
        self._share: float | None = None  # this worker's part of the limit
        self._found_at = 0.0
        self._written_at = 0.0
        self._requests = 0  # at the latest look
        self.workers = 1

    def __repr__(self) -> str:
        return f"<Sharing [{self.workers} workers]>"

    def refused(self, delay_seconds: float, *, throttled: bool = True) -> None:
        """The service asked this worker to wait: it met the limit, or else the service is in trouble."""
        kind: Literal["refused", "paused"] = "refused" if throttled else "paused"
        self._tell(REFUSAL, Event(kind, next(self._numbers), delay_seconds=delay_seconds))

    def gate_changed(self, event: GateEvent) -> None:
        """This worker halted, or resumed."""
        if event.kind != "slowed":
            self._tell(EVENT, Event(event.kind, next(self._numbers), reason=event.reason))

    def _tell(self, kind: str, event: Event) -> None:
        self._untold[kind + self._owner] = event
        self._news.set()

    async def begin(self) -> None:
        """Let flow control start from the limit found last, divided by the number of workers with this one.

        Raises:
            QueueUnavailable: the store does not answer.
        """
        notes = await self._read()
        limit = limit_in(notes)
        self._flow.others_at_work(sum(_sends(age, state) for age, state in self._others(notes)))
        if limit is not None:
            self._flow.begin_at(limit.per_second / (len(at_work(notes)) + 1), limit.age_seconds)
            self._share, self._found_at = self._flow.snapshot().rate_limit_per_second, self._clock() - limit.age_seconds

    async def run(self) -> None:
        """Write and read notes until cancelled; a store that is away is asked again later."""
        until = self._clock() + _BEGINNING_SECONDS
        while True:
            is_beginning = self._clock() < until
            self._news.clear()
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                await self._tell_events()
                await self._tell_state(_PAUSE_SECONDS if is_beginning else _STATE_SECONDS)
                await self._listen()
            await asyncio.sleep(_PAUSE_SECONDS)
            if not is_beginning:
                await self._pause()

    async def _pause(self) -> None:
        """Wait until there is news, or until it is time to read again. An idle worker reads less often."""
        for _ in range(_IDLE_PAUSES):
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._news.wait()
                    return
            state = self._flow.snapshot()
            before, self._requests = self._requests, state.requests
            if state.in_flight or state.requests != before or state.gate is not GateState.OPEN:
                return
            if _lasting(state) != self._state:  # the last note tells of the work, and has to tell that it is over
                return

    async def close(self) -> None:
        """Delete this worker's notes, and leave the limit that it found."""
        with suppress(QueueUnavailable):  # the notes will be too old soon enough
            await self._tell_limit(self._flow.snapshot())
            for kind in (WORKER, EVENT, REFUSAL):
                await self._queue.write_note(kind + self._owner, None)

    async def _tell_events(self) -> None:
        for name, event in list(self._untold.items()):
            await self._queue.write_note(name, msgspec.json.encode(event).decode())
            if self._untold[name] is event:  # else there is a newer one to write
                del self._untold[name]

    async def _tell_state(self, changed_seconds: float) -> None:
        """Write this worker's state, if it has changed and the last note is so old, or if that grows too old."""
        state = self._flow.snapshot()
        age_seconds = self._clock() - self._written_at
        due_after = changed_seconds if _lasting(state) != self._state else REFRESH_SECONDS
        if self._state is not None and age_seconds < due_after:
            return
        await self._queue.write_note(WORKER + self._owner, msgspec.json.encode(asdict(state)).decode())
        self._state, self._written_at = _lasting(state), self._clock()
        await self._tell_limit(state)

    async def _tell_limit(self, state: FlowState) -> None:
        """Keep the limit for the next run. Each worker finds its part; the note holds the limit of all together."""
        if state.rate_limit_per_second is None:
            return
        if state.rate_limit_per_second != self._share:
            self._share, self._found_at = state.rate_limit_per_second, self._clock()
        limit = state.rate_limit_per_second * self.workers
        if limit != self._limit:
            found = Limit(limit, self._clock() - self._found_at)
            await self._queue.write_note(LIMIT, msgspec.json.encode(found).decode())
            self._limit = limit

    async def _read(self) -> dict[str, Note]:
        asked_at = self._clock()
        notes = await self._queue.read_notes()
        self._on_notes(notes, asked_at)
        return notes

    async def _listen(self) -> None:
        notes, own = await self._read(), (EVENT + self._owner, REFUSAL + self._owner)
        self.workers = max(1, len(at_work(notes)))
        others = self._others(notes)
        self._flow.others_at_work(sum(_sends(age, state) for age, state in others))
        for name, note in notes.items():
            if name.startswith((EVENT, REFUSAL, WORKER)) and note.age_seconds > _FORGOTTEN_SECONDS:
                await self._queue.write_note(name, None)
            elif name.startswith((EVENT, REFUSAL)) and name not in own and self._heard.get(name) != note.text:
                self._heard[name] = note.text
                if note.age_seconds <= FRESH_SECONDS:
                    self._heed(note)
        for _, state in others:
            self._hear_of_success(state)
        for name in self._heard.keys() - notes.keys():  # their workers have gone
            del self._heard[name]

    def _others(self, notes: Mapping[str, Note]) -> list[tuple[float, FlowState]]:
        """The states of the other active workers, each with its note's age in seconds."""
        return [
            (note.age_seconds, state)
            for owner, note in at_work(notes).items()
            if owner != self._owner and (state := parse_state(note.text, note.age_seconds)) is not None
        ]

    def _hear_of_success(self, state: FlowState) -> None:
        """Pass on when another worker last got through: that is evidence against failures in the error format here."""
        for operation, seconds_ago in state.got_through_seconds_ago.items():
            self._flow.others_succeeded(operation, seconds_ago)

    def _heed(self, note: Note) -> None:
        try:
            event = msgspec.json.decode(note.text, type=Event)
        except (msgspec.DecodeError, RecursionError):
            return  # another release wrote it
        left_seconds = max(0.0, min(event.delay_seconds, _LONGEST_DELAY_SECONDS) - note.age_seconds)
        match event.kind:
            case "refused":
                self._flow.others_refused(left_seconds)
            case "paused":
                self._flow.others_paused(left_seconds)
            case "halted":
                self._flow.others_halted(event.reason, note.age_seconds)
            case "resumed":
                self._flow.others_resumed()
            case _:
                assert_never(event.kind)


def _sends(age_seconds: float, state: FlowState) -> bool:
    """Whether a worker sends requests now, and is not idle, halted or gone: those that do meet a limit together."""
    seconds_ago = age_seconds if state.in_flight else min(state.got_through_seconds_ago.values(), default=math.inf)
    return state.gate is GateState.OPEN and seconds_ago < _SENDING_SECONDS


def _lasting(state: FlowState) -> FlowState:
    """The state without the fields that change as time passes."""
    return replace(
        state,
        seconds_closed=0.0,
        halted_for_seconds=None,
        next_probe_in_seconds=None,
        closed_for_seconds=0.0,
        got_through_seconds_ago={},
    )
