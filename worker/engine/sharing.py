"""What a worker tells the others on its queue, by notes in the store, and what it hears from them."""

import asyncio
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
_IDLE_PAUSES = 12  # as many of these, while there is nothing to do
_STATE_SECONDS = 2.0  # between two notes of a state that changes all the time
_PAUSE_SECONDS = 0.1  # so that a burst of refusals is not as many notes
_LONGEST_DELAY_SECONDS = 86_400.0  # no worker waits for longer, so none tells of more
_FORGOTTEN_SECONDS = 600.0  # notes of workers that were killed: each start has a name of its own


def _ignore(*_: object) -> None:
    pass


class Event(msgspec.Struct, frozen=True):
    """Something that concerns every worker.

    Args:
        number: of no meaning but that each event's is another one.
        delay_seconds: how long the service asked everybody to wait.
        reason: of a halt.
    """

    kind: Literal["refused", "paused", "halted", "resumed"]
    number: int
    delay_seconds: float = 0.0
    reason: str = ""


class Sharing:
    """Tells the others how this worker is doing and what happened to it, and flow control what happened to them.

    A note is written when it says
    something new, and otherwise just often enough to show that its worker is there.

    Args:
        owner: this worker's name.
        clock: monotonic seconds.
        on_notes: is handed all notes whenever they were read, and when they were asked for, by the clock.
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
        self._untold: dict[str, Event] = {}  # by the name of its note; no refusal takes the place of a halt
        self._news = asyncio.Event()
        self._heard: dict[str, str] = {}
        self._state: FlowState | None = None
        self._limit: float | None = None
        self._share: float | None = None  # this worker's, of the limit
        self._found_at = 0.0
        self._written_at = 0.0
        self.workers = 1

    def __repr__(self) -> str:
        return f"<Sharing [{self.workers} workers]>"

    def refused(self, delay_seconds: float, *, throttled: bool = True) -> None:
        """The service asked this worker to wait: as it met the limit, or as the service is in trouble."""
        kind: Literal["refused", "paused"] = "refused" if throttled else "paused"
        self._tell(REFUSAL, Event(kind, next(self._numbers), delay_seconds=delay_seconds))

    def gate_changed(self, event: GateEvent) -> None:
        """This worker was halted, or goes on."""
        if event.kind != "slowed":
            self._tell(EVENT, Event(event.kind, next(self._numbers), reason=event.reason))

    def _tell(self, kind: str, event: Event) -> None:
        self._untold[kind + self._owner] = event
        self._news.set()

    async def begin(self) -> None:
        """Let flow control start from the limit found last: from the part of it that is one more worker's.

        Raises:
            QueueUnavailable: the store is not there.
        """
        notes = await self._read()
        limit = limit_in(notes)
        if limit is not None:
            self._flow.begin_at(limit.per_second / (len(at_work(notes)) + 1), limit.age_seconds)
            self._share, self._found_at = self._flow.snapshot().rate_limit_per_second, self._clock() - limit.age_seconds

    async def run(self) -> None:
        """Tell and listen, until cancelled; a store that is away hears and says nothing."""
        while True:
            self._news.clear()
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                await self._tell_events()
                await self._tell_state()
                await self._listen()
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._pause()

    async def _pause(self) -> None:
        """Wait until there is something to tell or to hear; a worker that has nothing to do need not hear so much."""
        before = self._flow.snapshot().requests
        for _ in range(_IDLE_PAUSES):
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._news.wait()
                    return
            state = self._flow.snapshot()
            if state.in_flight or state.requests != before or state.gate is not GateState.OPEN:
                return

    async def close(self) -> None:
        """Nothing more will happen to this worker; the limit that it found stays."""
        with suppress(QueueUnavailable):  # then its notes will look old soon enough
            await self._tell_limit(self._flow.snapshot())
            for kind in (WORKER, EVENT, REFUSAL):
                await self._queue.write_note(kind + self._owner, None)

    async def _tell_events(self) -> None:
        for name, event in list(self._untold.items()):
            await self._queue.write_note(name, msgspec.json.encode(event).decode())
            if self._untold[name] is event:  # nothing newer has happened meanwhile
                del self._untold[name]

    async def _tell_state(self) -> None:
        """Say how this worker is doing, if that has changed, or if the last word grows old."""
        state = self._flow.snapshot()
        age_seconds = self._clock() - self._written_at
        due_after = _STATE_SECONDS if _lasting(state) != self._state else REFRESH_SECONDS
        if self._state is not None and age_seconds < due_after:
            return
        await self._queue.write_note(WORKER + self._owner, msgspec.json.encode(asdict(state)).decode())
        self._state, self._written_at = _lasting(state), self._clock()
        await self._tell_limit(state)

    async def _tell_limit(self, state: FlowState) -> None:
        """Keep what was found for the next run: the limit of all together, of which each worker finds its part."""
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
        for name, note in notes.items():
            if name.startswith((EVENT, REFUSAL, WORKER)) and note.age_seconds > _FORGOTTEN_SECONDS:
                await self._queue.write_note(name, None)
            elif name.startswith((EVENT, REFUSAL)) and name not in own and self._heard.get(name) != note.text:
                self._heard[name] = note.text
                if note.age_seconds <= FRESH_SECONDS:
                    self._heed(note)
        for owner, note in at_work(notes).items():
            if owner != self._owner:
                self._hear_of_success(note)
        for name in self._heard.keys() - notes.keys():  # of workers that have gone
            del self._heard[name]

    def _hear_of_success(self, note: Note) -> None:
        """What gets through at another worker speaks against what is refused here in the service's own words."""
        state = parse_state(note.text)
        if state is not None:
            for operation, seconds_ago in state.got_through_seconds_ago.items():
                self._flow.others_succeeded(operation, note.age_seconds + seconds_ago)

    def _heed(self, note: Note) -> None:
        try:
            event = msgspec.json.decode(note.text, type=Event)
        except (msgspec.DecodeError, RecursionError):
            return  # of another version's
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


def _lasting(state: FlowState) -> FlowState:
    """The state without what changes by itself as time passes."""
    return replace(
        state,
        halted_for_seconds=None,
        next_probe_in_seconds=None,
        closed_for_seconds=0.0,
        got_through_seconds_ago={},
    )
