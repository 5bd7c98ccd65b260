"""Listen for new work, by a read that the server answers when something is put.

The answer is only a hint: workers poll as well.
"""

import asyncio

from worker.queue.errors import QueueError
from worker.queue.redis.server import Server

_READ_SECONDS = 30.0  # finds a connection that was cut silently
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0


class Listener:
    """Sets an event whenever something is put; starts with the first `ask`.

    Args:
        work: the event.
    """

    def __init__(self, server: Server, work: asyncio.Event) -> None:
        self._server = server
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Listen until something is put; a busy worker does not ask."""
        self._asked.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="metasync listener")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        heard, pause_seconds = b"0", _FIRST_PAUSE_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            await self._asked.wait()
            asked_at = clock()
            try:
                news = await self._server.read_news(heard, wait_seconds=_READ_SECONDS)
            except QueueError:  # the next claim meets the same error and reports it
                heard = b"0"  # the next server may count from a lower number
                if clock() - asked_at > pause_seconds:  # it did listen, until a proxy found it idle
                    pause_seconds = _FIRST_PAUSE_SECONDS
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            if news is not None:
                heard = news
                self._asked.clear()
                self._work.set()
