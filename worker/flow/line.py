"""The waiting line: first come, first served, woken by signals and one timer, never by polling."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress

# uvloop's timers have this resolution: a shorter one would fire at once, and again, and again.
_SHORTEST_TIMER_SECONDS = 0.001


class Line:
    """Lets requests start in the order in which they came, as soon as they may.

    Urgent requests have a line of their own. While both lines wait, they take turns, so that neither starves.
    Only the first in line is considered, and no turn is held for it: when rate, gate or slots change, the next start
    is computed anew.

    Args:
        start: counts a request that starts now and returns the time; None if none may start.
        wait_seconds: until `start` may succeed; infinity when only the end of a request can help.
        has_room_for_urgent: whether an urgent request may go before the others.
        give_back: undoes `start`.
    """

    def __init__(
        self,
        *,
        start: Callable[[bool], float | None],
        wait_seconds: Callable[[], float],
        has_room_for_urgent: Callable[[], bool],
        give_back: Callable[[float, bool], None],
    ) -> None:
        # Attributes and not properties: each start asks for them.
        self.waiting: deque[asyncio.Future[float | None]] = deque()
        self.urgent: deque[asyncio.Future[float | None]] = deque()
        self._start = start
        self._wait_seconds = wait_seconds
        self._has_room_for_urgent = has_room_for_urgent
        self._give_back = give_back
        self._urgent_went_last = False  # of the last start while both waited
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Line [{len(self)} waiting]>"

    def __len__(self) -> int:
        return len(self.waiting) + len(self.urgent)

    async def turn(self, *, urgent: bool = False) -> float | None:
        """Wait for the turn to start a request.

        Returns:
            when the request started, with the start counted; None when it was sent back, to look again.
        """
        turn: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        line = self.urgent if urgent else self.waiting
        line.append(turn)
        self.move()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it has left the line already
                    line.remove(turn)
            elif (started_at := turn.result()) is not None:
                self._give_back(started_at, urgent)
            self.move()
            raise

    async def change(self, timeout_seconds: float) -> None:
        """Wait until `wake` is called, or until the time is over."""
        with suppress(TimeoutError):
            limit = None if math.isinf(timeout_seconds) else max(timeout_seconds, _SHORTEST_TIMER_SECONDS)
            async with asyncio.timeout(limit):
                await self._changed.wait()

    def wake(self) -> None:
        """Let all look again that wait for a change."""
        self._changed.set()
        self._changed.clear()

    def send_back(self) -> None:
        """Let all look again that wait for a turn."""
        for line in (self.urgent, self.waiting):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)

    def move(self) -> None:
        """Start all that may start, and set the timer for the next; to be called after each event."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while line := self._whose_turn() if self.urgent else self.waiting:
            is_urgent = line is self.urgent
            if line[0].done():
                line.popleft()
            elif (started_at := self._start(is_urgent)) is not None:
                self._urgent_went_last = is_urgent
                line.popleft().set_result(started_at)
            else:
                wait_seconds = self._wait_seconds()
                if not math.isinf(wait_seconds):
                    delay_seconds = max(wait_seconds, _SHORTEST_TIMER_SECONDS)
                    self._timer = asyncio.get_running_loop().call_later(delay_seconds, self.move)
                return

    def _whose_turn(self) -> deque[asyncio.Future[float | None]]:
        """The line whose first request is next; an urgent request waits."""
        if self.waiting and (self._urgent_went_last or not self._has_room_for_urgent()):
            return self.waiting
        return self.urgent
