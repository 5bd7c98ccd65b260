"""Rate limits of routes, per peer; permitted callers are counted apart from strangers."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from worker.web.connections import Connections, peer_of

# Per peer, and for all peers together, against floods from very many addresses.
REQUESTS_PER_SECOND = 20
REQUESTS_ALTOGETHER = 200

_PENALTY_SECONDS = 0.5


class Rate:
    """A limit of requests per second, per peer and altogether.

    Args:
        clock: monotonic, seconds.
    """

    def __init__(self, per_peer: int, altogether: int, clock: Callable[[], float]) -> None:
        self._per_peer = per_peer
        self._altogether = altogether
        self._clock = clock
        self._second = 0
        self._taken = 0
        self._asked = Counter[str]()

    def __repr__(self) -> str:
        return f"<Rate [{self._taken} taken this second]>"

    def takes(self, peer: str) -> bool:
        """Count a request of this peer; False if it is one too many."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._taken, self._asked = second, 0, Counter()
        self._asked[peer] += 1
        if self._asked[peer] > self._per_peer or self._taken >= self._altogether:
            return False
        self._taken += 1
        return True


def all_known(_request: web.BaseRequest) -> bool:
    """Treat every caller as permitted."""
    return True


def none_known(_request: web.BaseRequest) -> bool:
    """Treat every caller as a stranger."""
    return False


@dataclass(frozen=True, slots=True)
class Bounds:
    """A route's limits: who is permitted, and how often they and strangers are answered.

    Args:
        own: whether the request is permitted; must be cheap. Strangers' connections never displace its connection.
        own_rate: their limit; None for none.
        strangers: the limit of all others; None for none. A refusal is delayed, so that a flood slows itself down.
    """

    own: Callable[[web.BaseRequest], bool]
    own_rate: Rate | None
    strangers: Rate | None

    async def admit(self, request: web.BaseRequest, connections: Connections) -> None:
        """Admit the request.

        Raises:
            HTTPTooManyRequests: the limit is reached.
        """
        is_own = self.own(request)
        if is_own:
            connections.know(request.protocol)
        rate = self.own_rate if is_own else self.strangers
        if rate is None or rate.takes(peer_of(request)):
            return
        if not is_own:
            await connections.delay(request.protocol, _PENALTY_SECONDS)
        raise web.HTTPTooManyRequests(text="too many requests\n", headers={hdrs.RETRY_AFTER: "1"})


# Health is always answered: a supervisor that gets no answer may kill the process.
ALWAYS = Bounds(own=all_known, own_rate=None, strangers=None)

# Signing in: no caller can prove anything yet. It is cheap, and limits wrong tokens by itself.
UNCOUNTED = Bounds(own=none_known, own_rate=None, strangers=None)
