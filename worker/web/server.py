"""The worker's HTTP server: health and metrics for machines, a page for people."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import structlog
from aiohttp import web

from worker.api.endpoint import is_loopback
from worker.engine import Worker
from worker.engine.supervisor import Supervisor
from worker.queue import QueueError, Store
from worker.web.access import Sessions
from worker.web.bounds import REQUESTS_ALTOGETHER, REQUESTS_PER_SECOND, UNCOUNTED, Bounds, Rate
from worker.web.connections import Connections
from worker.web.depth import STORE_TIMEOUT_SECONDS, Asked
from worker.web.door import Door, answer, from_the_page
from worker.web.health import Health
from worker.web.intake import Intake, Terms
from worker.web.link import left_for_people
from worker.web.listening import Unservable, listening
from worker.web.live import Live
from worker.web.metrics import CONTENT_TYPE, Metrics, Reading
from worker.web.page import Page, file
from worker.web.receiving import intake_routes
from worker.web.routes import Route, application
from worker.web.trouble import Trouble
from worker.web.view import View

_CLOSING_SECONDS = 1.0
_SAMPLE_SECONDS = 20.0
_WRONG_GUESSES_PER_SECOND = 2


class Surface:
    """The HTTP server of one worker.

    Args:
        token: required for everything but health; None lets every user of this machine look, but not act.
        show_values: whether the page shows metadata values.
        terms: configure the intake; None for no intake.
        dropped_lines: returns the number of log lines that were not written.
    """

    def __init__(
        self,
        worker: Worker,
        queue: Store,
        token: str | None,
        *,
        show_values: bool,
        terms: Terms | None,
        dropped_lines: Callable[[], int],
    ) -> None:
        self._dropped_lines = dropped_lines
        clock, unix_clock = worker.clock.monotonic, worker.clock.unix
        self.connections = Connections()
        self._worker = worker
        self._depth = Asked("status", queue.status, timeout_seconds=STORE_TIMEOUT_SECONDS, clock=clock)
        self.sessions = Sessions(token, unix_clock)
        self._door = Door(self.sessions, is_open=token is None)
        self._health = Health(queue, clock, self._door.sees, self._failing, lambda: worker.standstill() is not None)
        self._pulse = self._health.pulse
        self._intake = Intake(queue, terms, self._depth, self.connections) if terms else None
        self._metrics = Metrics()
        self._view = View(
            worker,
            queue,
            self._depth,
            timeout_seconds=STORE_TIMEOUT_SECONDS,
            show_values=show_values,
            clock=clock,
            unix_clock=unix_clock,
        )
        self._events = Live(self._view.document)
        self._strangers = Rate(REQUESTS_PER_SECOND, REQUESTS_ALTOGETHER, clock)
        self._bounds = Bounds(
            own=self.sessions.admits,
            own_rate=Rate(REQUESTS_PER_SECOND, REQUESTS_ALTOGETHER, clock),
            strangers=self._strangers,
        )
        guesses = Rate(_WRONG_GUESSES_PER_SECOND, REQUESTS_ALTOGETHER, clock)
        self._page = Page(queue, self._view, self._events, self.sessions, self.connections, wrong_guesses=guesses)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[web.Server]:
        """Start the application and the background loops; yields the factory of connections."""
        app = application(self.connections, self._routes(), guard=self._door.seeing, bounds=self._bounds)
        runner = web.AppRunner(app, shutdown_timeout=_CLOSING_SECONDS)
        await runner.setup()
        assert runner.server is not None  # noqa: S101 -- set up
        loops = Supervisor(structlog.get_logger(), _let_work_go_on)
        loops.start("web.pulse", self._pulse.beat())
        loops.start("web.page", self._events.run())
        loops.start("web.samples", self._sample())
        try:
            yield runner.server
        finally:
            await loops.stop()
            self._events.close()
            await runner.cleanup()

    def _routes(self) -> tuple[Route, ...]:
        """All routes."""
        door, page, bounds = self._door, self._page, self._bounds
        return (
            *self._health.routes(),
            *(intake_routes(self._intake, self._strangers) if self._intake else ()),
            Route("GET", "/metrics", self._scrape, door.seeing, bounds),
            Route("GET", "/", file("index.html"), door.person, bounds),
            Route("GET", "/page.js", file("page.js"), door.seeing, bounds),
            Route("GET", "/charts.js", file("charts.js"), door.seeing, bounds),
            Route("GET", "/page.css", file("page.css"), door.signing_in, UNCOUNTED),
            Route("GET", "/icon.svg", file("icon.svg"), door.signing_in, UNCOUNTED),
            Route("GET", "/sign-in.js", file("sign-in.js"), door.signing_in, UNCOUNTED),
            Route("GET", "/sign-in", page.sign_in_form, door.signing_in, UNCOUNTED),
            Route("POST", "/sign-in", page.sign_in, from_the_page(door.signing_in), UNCOUNTED),
            Route("POST", "/sign-out", page.sign_out, from_the_page(door.seeing), bounds),
            Route("GET", "/session", page.session, door.seeing, bounds),
            Route("GET", "/events", page.events, door.seeing, bounds),
            Route("GET", "/letters", page.letters, door.seeing, bounds),
            Route("POST", "/replay", page.replay, from_the_page(door.acting), bounds),
            Route("POST", "/purge", page.purge, from_the_page(door.acting), bounds),
        )

    async def _sample(self) -> None:
        trouble = Trouble("samples")
        while True:
            # The page and the metrics already show that the store is unavailable.
            with trouble.contained(), suppress(QueueError, TimeoutError):
                async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
                    await self._view.sample()
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _failing(self) -> Iterator[tuple[str, str]]:
        """Yield obstacles to the worker's work, besides an unreadable store."""
        if self._worker.tallies.store_error is not None:  # a readable store may still refuse writes
            yield "store", self._worker.tallies.store_error
        state = self._worker.flow_state()
        if state is None:
            yield "worker", "it has not started yet"
        elif state.cause is not None:
            yield "halted", state.cause.sentence
        if self._worker.stopping:
            yield "draining", "the worker stops"

    async def _scrape(self, _request: web.Request) -> web.Response:
        worker = self._worker
        reading = Reading(
            tallies=worker.tallies,
            flow=worker.flow_state(),
            is_paused=worker.standstill() is not None,
            status=await self._depth.look(),
            lag_seconds=self._pulse.lag_seconds,
            worst_lag_seconds=self._pulse.worst_lag_seconds,
            dropped_lines=self._dropped_lines(),
        )
        return answer(self._metrics.render(reading), CONTENT_TYPE)


def _let_work_go_on() -> None:
    """Ignore the death of a background loop: it is logged, and no reason to stop the worker."""


@asynccontextmanager
async def serving(
    worker: Worker,
    queue: Store,
    *,
    host: str,
    port: int,
    token: str | None,
    show_values: bool = False,
    dropped_lines: Callable[[], int] = int,
    terms: Terms | None = None,
) -> AsyncIterator[int]:
    """Serve a worker over HTTP; yields the port.

    Args:
        port: 0 for any free one.
        show_values: whether the page shows metadata values.
        dropped_lines: returns the number of log lines that were not written.
        terms: configure the intake; None for no intake.

    Raises:
        Unservable: the address cannot be used, or other machines could reach it and no token is set.
    """
    if token is None and not is_loopback(host):
        raise Unservable(
            f"METASYNC_HTTP_HOST is {host}, which others can reach: set METASYNC_HTTP_TOKEN, or serve on 127.0.0.1"
        )
    surface = Surface(worker, queue, token, show_values=show_values, terms=terms, dropped_lines=dropped_lines)
    async with surface.running() as server, listening(surface.connections, server, host, port) as at_port:
        with left_for_people(host, at_port, surface.sessions.ticket_key, is_needed=token is None):
            structlog.get_logger().info(
                "web.started", host=host, port=at_port, token=token is not None, intake=terms is not None
            )
            yield at_port
