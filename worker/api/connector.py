"""The pool of connections, which decides which of them may carry a request. Both transports use it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from worker.api.failure import UnaskedAnswerError
from worker.api.headers import KEEP_ALIVE, read_keep_alive_seconds
from worker.api.protocol import CallProtocol, Turn

# A router may forget an older idle connection, and the next request on it would take the whole time-out.
IDLE_SECONDS: Final = 15.0
# A server closes a connection when its announced idle time is over. No request may be on its way then.
_MARGIN_SECONDS: Final = 1.0


class Use:
    """The connection of one call: what the call needs, and how long the connection may be kept afterwards.

    Args:
        fresh: the call needs a new connection.
    """

    __slots__ = ("_connector", "_protocol", "fresh", "reused")

    def __init__(self, *, fresh: bool) -> None:
        self.fresh = fresh
        self.reused = False
        self._connector: Connector | None = None
        self._protocol: Any = None

    def begin(self, connector: "Connector", protocol: Any, *, reused: bool) -> None:  # noqa: ANN401 -- untyped, as it moves between releases of aiohttp
        self._connector, self._protocol, self.reused = connector, protocol, reused

    def end(self, idle_seconds: float) -> None:
        """Keep the connection for so long at most; close it at 0, even if the pool has it already."""
        if self._connector is None:
            return
        if idle_seconds:
            self._connector.limit_idle(self._protocol, idle_seconds)
        elif self._protocol.transport is not None:
            self._protocol.transport.close()


_use: ContextVar[Use | None] = ContextVar("use", default=None)


@contextmanager
def using(*, fresh: bool) -> Iterator[Use]:
    """A context in which `Connector.connect` returns a connection that suits the call."""
    use = Use(fresh=fresh)
    token = _use.set(use)
    try:
        yield use
    finally:
        _use.reset(token)


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, which hands out only connections that can carry a request; see `using`."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 -- passed on as they come
        super().__init__(keepalive_timeout=IDLE_SECONDS, **options)
        protocol: Callable[..., ResponseHandler] = CallProtocol
        self._factory = partial(protocol, Turn(self._loop), loop=self._loop)
        # Until when each connection may be used again, in monotonic seconds. A connection that is not in here is new.
        self._usable_until: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:  # noqa: ANN401 -- whatever this aiohttp takes
        """Return a connection without a request under way, and without unread bytes."""
        use = _use.get() or Use(fresh=False)
        use.reused = False
        while True:
            connection = await super().connect(*args, **kwargs)
            protocol = protocol_of(connection)
            usable_until = self._usable_until.get(protocol)
            reused = usable_until is not None
            is_old = usable_until is not None and (use.fresh or time.monotonic() >= usable_until)
            if not is_old and protocol.is_silent(is_new=not reused):
                self._usable_until[protocol] = math.inf
                use.begin(self, protocol, reused=reused)
                return connection
            connection.close()
            if not reused:
                raise UnaskedAnswerError

    def limit_idle(self, protocol: Any, idle_seconds: float) -> None:  # noqa: ANN401 -- as above
        """Keep a connection for so long at most."""
        if idle_seconds < IDLE_SECONDS:
            self._usable_until[protocol] = time.monotonic() + idle_seconds


def protocol_of(connection: Connection) -> CallProtocol:
    """The protocol of a connection that a `Connector` has just returned."""
    protocol = connection.protocol
    assert isinstance(protocol, CallProtocol)  # noqa: S101 -- made by the connector's factory
    return protocol


def idle_seconds(headers: Mapping[str, str]) -> float:
    """How long a connection may stay idle after an answer with these headers."""
    if KEEP_ALIVE not in headers:
        return IDLE_SECONDS
    told = read_keep_alive_seconds(headers)
    return IDLE_SECONDS if told is None else min(IDLE_SECONDS, max(0.0, told - _MARGIN_SECONDS))
