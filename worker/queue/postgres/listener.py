"""Listening for new work, on a connection of its own that is probed, and opened again when it is lost.

What is heard is a hint and no more: whoever waits for work polls all the same.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from worker.queue.base import QueueError
from worker.queue.postgres.connections import Connection, Connections, close

CHANNEL = "metasync"
_PROBE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0


class Listener:
    """Sets an event whenever somebody may have put something; starts when it is first asked to.

    Args:
        work: the event.
        probe_seconds: how often the connection is tried: one that was cut somewhere on its way says nothing by itself.
    """

    def __init__(self, connections: Connections, work: asyncio.Event, *, probe_seconds: float = _PROBE_SECONDS) -> None:
        self._connections = connections
        self._work = work
        self._probe_seconds = probe_seconds
        self._task: asyncio.Task[None] | None = None
        self.listens = asyncio.Event()

    def start(self) -> None:
        """Begin to listen, unless that has begun or the URL says not to."""
        if self._task is None and self._connections.address.listens:
            self._task = asyncio.create_task(self._run(), name="metasync listener")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._connection() as connection:
                    pause_seconds = _FIRST_PAUSE_SECONDS
                    await self._listen(connection)
            except QueueError:  # whoever claims next meets the same, and says so
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._connections.call():
            connection = await self._connections.connect()
        try:
            yield connection
        finally:
            await close(connection)

    async def _listen(self, connection: Connection) -> None:
        """Listen until the connection is lost, which is seen at once or by the next probe."""
        lost = asyncio.Event()
        connection.add_termination_listener(_setter(lost))
        async with self._connections.call():
            await connection.add_listener(CHANNEL, _setter(self._work))
        self._work.set()  # what has come since the last connection was not heard
        self.listens.set()
        try:
            while not lost.is_set():
                async with self._connections.call():
                    await connection.execute("SELECT 1")
                try:
                    async with asyncio.timeout(self._probe_seconds):
                        await lost.wait()
                except TimeoutError:
                    pass
        finally:
            self.listens.clear()


def _setter(event: asyncio.Event) -> Callable[..., None]:
    """A callback that takes whatever the driver has to say."""
    return lambda *_: event.set()
