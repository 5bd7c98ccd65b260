"""How often a route may be asked for: those who may ask are counted apart from everybody else, each peer by itself."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from worker.web.connections import Connections, peer_of

# Of each peer; and of all peers together, which matters once there are very many.
REQUESTS_PER_SECOND = 20
REQUESTS_ALTOGETHER = 200

_PENALTY_SECONDS = 0.5


class Rate:
    """How many requests a second each peer may make, and all of them together.

    Args:
        clock: seconds, never going back.
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
        """Whether this peer may ask once more."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._taken, self._asked = second, 0, Counter()
        self._asked[peer] += 1
        if self._asked[peer] > self._per_peer or self._taken >= self._altogether:
            return False
        self._taken += 1
        return True


def everybody(_request: web.BaseRequest) -> bool:
    """Whoever asks may ask."""
    return True


def nobody(_request: web.BaseRequest) -> bool:
    """Nobody shows anything."""
    return False


@dataclass(frozen=True, slots=True)
class Bounds:
    """Who may ask for a route, and how often they and all others are answered.

    Args:
        own: whether the request shows, at little cost, that it may be made. Its connection makes way for no stranger's.
        own_rate: of those; None for as often as they like.
        strangers: of all others; None for as often as they like. The answer to one too many comes late, so that a
            flood slows down itself.
    """

    own: Callable[[web.BaseRequest], bool]
    own_rate: Rate | None
    strangers: Rate | None

    async def admit(self, request: web.BaseRequest, connections: Connections) -> None:
        """Let the request in.

        Raises:
            HTTPTooManyRequests: there are too many.
        """
        is_own = self.own(request)
        if is_own:
            connections.know(request.protocol)
        rate = self.own_rate if is_own else self.strangers
        if rate is None or rate.takes(peer_of(request)):
            return
        if not is_own:
            await asyncio.sleep(_PENALTY_SECONDS)
        raise web.HTTPTooManyRequests(text="too many requests\n", headers={hdrs.RETRY_AFTER: "1"})


# Whoever asks for our health may end us when we say nothing.
ALWAYS = Bounds(own=everybody, own_rate=None, strangers=None)

# What signing in takes, which nobody can show anything for yet: it costs little, and counts what is wrong by itself.
UNCOUNTED = Bounds(own=nobody, own_rate=None, strangers=None)
