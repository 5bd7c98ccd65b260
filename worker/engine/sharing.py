"""What one worker learns of the service, told to all on the same queue: to wait, that all is halted, or not."""

import asyncio
import time
from contextlib import suppress
from itertools import count
from typing import Literal

import msgspec

from worker.flow import Flow, GateEvent
from worker.queue import Queue, QueueUnavailable
from worker.queue.base import Note
from worker.queue.notes import EVENT, FRESH_SECONDS, REFUSAL, WORKER, at_work

_EVERY_SECONDS = 1.0
_PAUSE_SECONDS = 0.1  # so that a burst of refusals is not as many notes
_FORGOTTEN_SECONDS = 3_600.0  # notes of workers that were killed


class Event(msgspec.Struct, frozen=True):
    """Something that concerns every worker.

    Args:
        number: of no meaning but that each event's is another one.
        delay_seconds: how long the service asked everybody to wait.
        reason: of a halt.
    """

    kind: Literal["refused", "halted", "resumed"]
    number: int
    delay_seconds: float = 0.0
    reason: str = ""


class Sharing:
    """Tells the others of what happens to this worker, and flow control of what happens to them.

    What came from another worker is not told on: nothing goes round in circles.

    Args:
        owner: this worker's name.
    """

    def __init__(self, queue: Queue, owner: str) -> None:
        self._queue = queue
        self._owner = owner
        self._numbers = count(time.time_ns())
        self._untold: dict[str, Event] = {}  # by the name of its note; no refusal takes the place of a halt
        self._news = asyncio.Event()
        self._seen: dict[str, str] = {}
        self.told_by: str | None = None  # the worker whose word flow control is hearing just now
        self.workers = 1

    def __repr__(self) -> str:
        return f"<Sharing [{self.workers} workers]>"

    def refused(self, delay_seconds: float) -> None:
        """The service asked this worker to wait."""
        self._tell(REFUSAL, Event("refused", next(self._numbers), delay_seconds=delay_seconds))

    def transition(self, event: GateEvent) -> None:
        """This worker was halted, or goes on."""
        self._tell(EVENT, Event(event.kind, next(self._numbers), reason=event.reason))

    def _tell(self, kind: str, event: Event) -> None:
        if self.told_by is None:
            self._untold[kind + self._owner] = event
            self._news.set()

    async def keep(self, flow: Flow) -> None:
        """Tell and listen, until cancelled; a store that is away hears and says nothing."""
        while True:
            self._news.clear()
            with suppress(QueueUnavailable):  # claims and records say so loudly enough
                await self._write()
                await self._listen(flow)
            await asyncio.sleep(_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._news.wait()

    async def close(self) -> None:
        """Nothing more will happen to this worker."""
        with suppress(QueueUnavailable):  # then it will look old soon enough
            for kind in (EVENT, REFUSAL):
                await self._queue.write_note(kind + self._owner, None)

    async def _write(self) -> None:
        for name, event in list(self._untold.items()):
            await self._queue.write_note(name, msgspec.json.encode(event).decode())
            if self._untold[name] is event:  # nothing newer has happened meanwhile
                del self._untold[name]

    async def _listen(self, flow: Flow) -> None:
        notes, own = await self._queue.read_notes(), (EVENT + self._owner, REFUSAL + self._owner)
        self.workers = max(1, len(at_work(notes)))
        for name, note in notes.items():
            if name.startswith((EVENT, REFUSAL, WORKER)) and note.age_seconds > _FORGOTTEN_SECONDS:
                await self._queue.write_note(name, None)
            elif name.startswith((EVENT, REFUSAL)) and name not in own and self._seen.get(name) != note.text:
                self._seen[name] = note.text
                if note.age_seconds <= FRESH_SECONDS:
                    self._heed(flow, note, name.partition(" ")[2])

    def _heed(self, flow: Flow, note: Note, told_by: str) -> None:
        try:
            event = msgspec.json.decode(note.text, type=Event)
        except msgspec.DecodeError:
            return  # of another version's
        self.told_by = told_by
        try:
            match event.kind:
                case "refused":
                    flow.others_refused(max(0.0, event.delay_seconds - note.age_seconds))
                case "halted":
                    flow.others_halted(event.reason, note.age_seconds)
                case "resumed":
                    flow.others_resumed()
        finally:
            self.told_by = None
