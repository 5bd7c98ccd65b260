"""Health checks for supervisors and load balancers, without authentication."""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from aiohttp import web

from worker.queue import Store
from worker.web.bounds import ALWAYS
from worker.web.depth import STORE_TIMEOUT_SECONDS, Asked
from worker.web.door import JSON, admit_all, answer
from worker.web.pulse import Pulse
from worker.web.routes import Route

# An error may name hosts, accounts and files, or quote a service: it is not for all who can reach a health check.
UNTOLD: Final = "send the token to see why"


class Health:
    """Answers whether the event loop runs (live), and whether the process can do its work (ready).

    Args:
        queue: asked, rarely, whether it is reachable; not for counts, which are slow.
        clock: monotonic, seconds.
        sees: whether a caller is told the reasons, and not only what fails.
        failing: yields other obstacles, each a name and a sentence.
        is_paused: whether the queue is paused. That is no failure: a restart would not help.
    """

    def __init__(
        self,
        queue: Store,
        clock: Callable[[], float],
        sees: Callable[[web.Request], bool],
        failing: Callable[[], Iterable[tuple[str, str]]] = tuple,
        is_paused: Callable[[], bool] = bool,
    ) -> None:
        self.pulse = Pulse(clock)
        self._reach = Asked("reach", queue.read_notes, timeout_seconds=STORE_TIMEOUT_SECONDS, clock=clock)
        self._sees = sees
        self._failing = failing
        self._is_paused = is_paused

    def routes(self) -> tuple[Route, ...]:
        """The routes of the health checks."""
        return (
            Route("GET", "/livez", self._live, admit_all, ALWAYS),
            Route("GET", "/healthz", self._live, admit_all, ALWAYS),
            Route("GET", "/readyz", self._ready, admit_all, ALWAYS),
        )

    async def _live(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode({"tick_age_seconds": round(self.pulse.age_seconds, 3)})
        return answer(body, JSON, status=503 if self.pulse.is_stuck else 200)

    async def _ready(self, request: web.Request) -> web.Response:
        await self._reach.look()
        failing = dict(self._failing())
        if self._reach.error is not None:
            failing["store"] = self._reach.error
        if not self._sees(request):
            failing = dict.fromkeys(failing, UNTOLD)
        said: dict[str, object] = {"ready": not failing, "failing": failing}
        if self._is_paused():
            said["paused"] = True
        body = msgspec.json.encode(said)
        return answer(body, JSON, status=503 if failing else 200)
