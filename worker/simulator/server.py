"""The simulator's HTTP server: listens, passes requests to the service, sends the answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from msgspec.structs import replace

from worker.simulator.answers import PROCESSING_TIME, Answer, method_not_allowed, unknown_url
from worker.simulator.control import Control
from worker.simulator.delivery import Delivery
from worker.simulator.kinds import Fault, FaultKind
from worker.simulator.options import Options
from worker.simulator.requests import Call, parse_call
from worker.simulator.service import Service, Switches
from worker.simulator.watch import Counters

_CONTROL = "/_simulator"
_MAX_CONTROL_BODY_BYTES = 64 * 1_048_576
# How long requests under way have to react to their cancellation when the simulator stops.
_STOP_SECONDS = 0.1


class Simulator:
    """The simulated service: an asynchronous context manager that listens while it is open.

    Args:
        options: its properties.
        clock: monotonic Unix time in seconds, for limits and lag.
        sleep: waits so many seconds, for latency.

    Raises:
        OSError: on entry, the address cannot be bound.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._service = Service(options or Options(), clock=clock or _unix_clock(), sleep=sleep)
        self._delivery = Delivery(sleep)
        self._control = Control(self)
        self._port = self.options.port
        self._runner: web.ServerRunner | None = None
        self.seed_completions(f"chatcmpl-{number:06d}" for number in range(1, self.options.completions + 1))

    def __repr__(self) -> str:
        state = self.base_url if self._runner else "stopped"
        return f"<Simulator [{state}, {len(self._service.store)} completions]>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop, on the same port and with the same state."""
        self._service.stopping.clear()
        server = web.Server(self._handle, request_factory=self._request, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        site = web.TCPSite(runner, self.options.host, self._port)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = site.port

    async def stop(self) -> None:
        """Refuse new connections and drop open ones, so that clients see an outage."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._service.stopping.set()
        if runner.server is not None:
            for connection in runner.server.connections:
                connection.force_close()
        await runner.cleanup()

    @property
    def base_url(self) -> str:
        """The base URL for clients."""
        return f"{self._origin}/v1"

    @property
    def control_url(self) -> str:
        """The base URL of the control endpoints."""
        return f"{self._origin}{_CONTROL}"

    @property
    def _origin(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.options.host, self.options.host)  # noqa: S104 -- compared
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    @property
    def options(self) -> Options:
        """The properties. They can be replaced, except host and port; a changed limit starts afresh."""
        return self._service.options

    @options.setter
    def options(self, options: Options) -> None:
        self._service.options = options

    @property
    def switches(self) -> Switches:
        """States that can be switched on and off."""
        return self._service.switches

    @property
    def counters(self) -> Counters:
        """Counts since the start or the last reset."""
        return self._service.counters

    @property
    def violations(self) -> list[str]:
        """One sentence for each pair of concurrent updates of one completion."""
        return self._service.writer.violations

    @property
    def read_violations(self) -> list[str]:
        """One sentence for each get of a completion that was concurrent with an update."""
        return self._service.writer.read_violations

    def reset(self) -> None:
        """Clear counters, violations and histories."""
        self.counters.reset()
        self.violations.clear()
        self.read_violations.clear()
        self._service.store.forget_history()

    def fail_next(self, *faults: FaultKind | Answer | Fault) -> None:
        """Let the next requests fail in these ways, one fault each."""
        self._service.next_faults.extend(fault if isinstance(fault, Fault) else Fault(fault) for fault in faults)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is checked whenever a request arrives, fails or ends."""
        await self._service.until(condition)

    def seed(
        self, completion_id: str, metadata: Mapping[str, str] | None = None, lag_seconds: float | None = None
    ) -> None:
        """Store a completion; it replaces one with the same id.

        Args:
            lag_seconds: how long it stays invisible; 0 by default.
        """
        self.seed_completions([completion_id], metadata, lag_seconds)

    def seed_completions(
        self,
        ids: Iterable[str],
        metadata: Mapping[str, str] | None = None,
        lag_seconds: float | None = None,
    ) -> None:
        """Store many completions with the same metadata; they replace those with the same ids."""
        service = self._service
        shared, now, model = dict(metadata or {}), service.clock(), self.options.model
        for completion_id in ids:
            service.store.add(completion_id, shared, model=model, now=now, lag_seconds=lag_seconds or 0.0)

    def metadata(self, completion_id: str) -> dict[str, str]:
        """The completion's current metadata, visible or not; raises KeyError for an unknown completion."""
        return dict(self._service.store.get(completion_id).metadata)

    def all_metadata(self) -> dict[str, dict[str, str]]:
        """The metadata of every completion, by id."""
        return {completion.id: dict(completion.metadata) for completion in self._service.store.snapshot()}

    def history(self, completion_id: str) -> list[dict[str, str]]:
        """The completion's maps, oldest first, as many as the options keep."""
        return self._service.store.history(completion_id)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_CONTROL_BODY_BYTES)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        if target.startswith(_CONTROL):
            return await self._control.handle(request, target.removeprefix(_CONTROL).partition("?")[0])
        call = parse_call(request.method, target)
        if isinstance(call, Call):
            answer = await self._service.answer(call, _Incoming(request))
        else:
            path = target.partition("?")[0]
            explain = unknown_url if call == "unknown_url" else method_not_allowed
            answer = explain(request.method, path)
            if not answer.gateway:
                answer = replace(answer, headers={"X-Request-Id": self._service.request_id(), PROCESSING_TIME: "0"})
            self.counters.ended("unknown", answer.status)
        return await self._delivery.deliver(request, answer)


class _Incoming:
    """A request in the form that `Service` takes."""

    __slots__ = ("_request",)

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    def header(self, name: str) -> str:
        return self._request.headers.get(name, "")

    async def body(self) -> bytes:
        return await self._request.read() if self._request.body_exists else b""


def _unix_clock() -> Callable[[], float]:
    """Return a Unix clock that stays monotonic if the machine's clock is set."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
