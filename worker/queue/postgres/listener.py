"""Listens for new changes, on its own connection, which is probed, and opened again when it is lost.

A notification is only a hint: a worker that waits polls anyway. Transactions that notify commit one after the other. So
producers notify only while a worker asks for it, and a worker asks until it has heard one.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from worker.queue.errors import QueueError
from worker.queue.postgres.connections import Connection, Connections, close
from worker.queue.statements import read_statements

CHANNEL = "metasync"
_PROBE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
# How often to check whether transactions have ended that ran when we began to ask.
_FIRST_LOOK_SECONDS = 0.02
_LONGEST_LOOK_SECONDS = 1.0

_LISTEN = read_statements(__package__, "listen")


class Listener:
    """Sets an event when a producer may have put something. It starts when it is first asked to.

    Args:
        work: the event.
        probe_seconds: how often the connection is tested. A connection that was cut somewhere on its way shows nothing.
    """

    def __init__(self, connections: Connections, work: asyncio.Event, *, probe_seconds: float = _PROBE_SECONDS) -> None:
        self._connections = connections
        self._work = work
        self._probe_seconds = probe_seconds
        self._task: asyncio.Task[None] | None = None
        self._is_asking = False
        self._stirred = asyncio.Event()
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self.asks = asyncio.Event()

    def start(self) -> None:
        """Begin to listen, unless it has begun or the URL says not to."""
        if self._task is None and self._connections.address.listens:
            self._task = asyncio.create_task(self._run(), name="metasync listener")

    def ask(self) -> None:
        """Ask producers to notify, until the first one does.

        The event is set once they will. Changes that were put before have to be looked for.
        """
        if not self._is_asking:
            self._is_asking = True
            self._stirred.set()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            with suppress(QueueError):  # the next claim meets the same error, and reports it
                async with self._connection() as connection:
                    await self._listen(connection)
            await asyncio.sleep(self._pause_seconds)
            self._pause_seconds = min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._connections.call():
            connection = await self._connections.connect()
        try:
            yield connection
        finally:
            await close(connection)

    async def _listen(self, connection: Connection) -> None:
        """Listen until the connection is lost, or leads to the wrong server, which the next probe finds."""
        demotions = self._connections.demotions
        connection.add_termination_listener(self._stir)
        async with self._connections.call():
            if await self._connections.is_pooled(connection):  # it would listen in vain, and never end its request
                return
            await connection.add_listener(CHANNEL, self._hear)  # a standby accepts connections, but refuses this
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._work.set()  # changes since the last connection were not heard
        request = Request(connection)
        try:
            while not connection.is_closed() and demotions == self._connections.demotions:
                async with self._connections.call():
                    if await request.update(is_asking=self._is_asking):
                        self._work.set()
                (self.asks.set if request.stands else self.asks.clear)()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(self._probe_seconds, request.look_seconds)):
                        await self._stirred.wait()
                self._stirred.clear()
        finally:
            self.asks.clear()

    def _hear(self, *_: object) -> None:
        self._work.set()
        self._is_asking = False
        self._stirred.set()

    def _stir(self, *_: object) -> None:
        self._stirred.set()


class Request:
    """The request to producers to notify, as the server has it. It ends with the connection.

    Transactions that began before it will not notify when they commit. So it watches for their ends.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._untold: set[int] = set()
        self.stands = False
        self._look_seconds = _FIRST_LOOK_SECONDS

    @property
    def look_seconds(self) -> float:
        """When to look at those transactions again."""
        return self._look_seconds if self._untold else math.inf

    async def update(self, *, is_asking: bool) -> bool:
        """Bring the request to the wanted state; return whether changes may have come without a notification."""
        if is_asking and not self.stands:
            await self._connection.execute(_LISTEN["say"])
            self.stands = True
            self._look_seconds = _FIRST_LOOK_SECONDS
            await self._connection.execute(_LISTEN["number"])
            self._untold = await self._running()
            return True
        if self.stands and not is_asking:
            await self._connection.execute(_LISTEN["unsay"])
            self.stands = False
            self._untold = set()
        running = await self._running()  # always, since it is the probe, too
        has_ended = not self._untold <= running
        self._untold &= running
        self._look_seconds = min(self._look_seconds * 2, _LONGEST_LOOK_SECONDS)
        return has_ended

    async def _running(self) -> set[int]:
        return {row["number"] for row in await self._connection.fetch(_LISTEN["running"])}
