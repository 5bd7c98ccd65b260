"""The waiting line: first come, first served, woken by signals and one timer, never by polling."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from worker.flow.controls import Controls

# uvloop's timers have this resolution: a shorter one would fire at once, and again, and again.
_SHORTEST_TIMER_SECONDS = 0.001


class Line:
    """Lets requests start in the order in which they came, as soon as the controls allow it.

    Urgent ones have a line of their own. While both wait, they take turns, whatever the rate; and where urgent requests
    take longer than others, they have half of the slots at most: so nobody starves.

    Only the first in line is considered, and nothing is reserved for anybody: when rate, gate or slots change, the
    next start is computed anew.
    """

    def __init__(self, controls: Controls, clock: Callable[[], float]) -> None:
        self._controls = controls
        self._clock = clock
        self._waiting: deque[asyncio.Future[float | None]] = deque()
        self._urgent: deque[asyncio.Future[float | None]] = deque()
        self._urgent_went_last = False  # of the last start while both waited
        self._watching: set[asyncio.Future[None]] = set()
        self._changes_seen = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Line [{len(self)} waiting, {len(self._watching)} watching]>"

    def __len__(self) -> int:
        return len(self._waiting) + len(self._urgent)

    async def turn(self, *, urgent: bool = False) -> float | None:
        """Wait for the turn to start a request.

        Returns:
            when it started, by the clock, with the start counted; or None when gate or pacer closed, to look again.
        """
        turn: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        line = self._urgent if urgent else self._waiting
        line.append(turn)
        self.move()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it has left already
                    line.remove(turn)
            else:
                started_at = turn.result()
                if started_at is not None:
                    self._controls.give_back(started_at, urgent=urgent)
            self.move()
            raise

    async def change(self, timeout_seconds: float) -> None:
        """Wait until gate or pacer change, or until the time is over."""
        loop = asyncio.get_running_loop()
        changed: asyncio.Future[None] = loop.create_future()
        timer = None
        if not math.isinf(timeout_seconds):
            timer = loop.call_later(max(timeout_seconds, _SHORTEST_TIMER_SECONDS), _resolve, changed)
        self._watching.add(changed)
        try:
            await changed
        finally:
            self._watching.discard(changed)
            if timer:
                timer.cancel()

    def move(self) -> None:
        """Let everybody start who may, and set the timer for the next; called whenever anything has happened."""
        if self._changes_seen != self._controls.changes:
            self._changes_seen = self._controls.changes
            for changed in self._watching:
                _resolve(changed)
            if not self._controls.passable(self._clock()):
                self._send_back()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while line := self._whose_turn() if self._urgent else self._waiting:
            now = self._clock()
            if line[0].done():
                line.popleft()
            elif self._controls.start(now):
                if line is self._urgent:
                    self._controls.urgent_in_flight += 1
                self._urgent_went_last = line is self._urgent
                line.popleft().set_result(now)
            else:
                wait_seconds = self._controls.wait_seconds(now)
                if not math.isinf(wait_seconds):
                    delay_seconds = max(wait_seconds, _SHORTEST_TIMER_SECONDS)
                    self._timer = asyncio.get_running_loop().call_later(delay_seconds, self.move)
                return

    def _whose_turn(self) -> deque[asyncio.Future[float | None]]:
        """The line whose first is next, where an urgent request waits."""
        if not self._waiting:
            return self._urgent
        half = (self._controls.concurrency.slots + 1) // 2
        is_usual = self._urgent_went_last or self._controls.urgent_in_flight >= half
        return self._waiting if is_usual else self._urgent

    def _send_back(self) -> None:
        for line in (self._urgent, self._waiting):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
