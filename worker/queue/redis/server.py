"""The connection to the server: calls the library's functions, each within the time-out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.queue.home import Home
from worker.queue.redis.address import Address
from worker.queue.redis.errors import DRIVER_ERRORS, explained, is_demoted, is_full, is_function_missing, unavailable
from worker.queue.redis.examination import examine
from worker.queue.redis.library import Library

# Concurrent calls, each on its own connection; further ones wait.
_MAX_CONNECTIONS = 16

_NO_ROOM_FOR_FUNCTIONS = (
    "its memory is used up (maxmemory), and the queue's functions are not loaded; free some, or raise maxmemory"
)


class Server:
    """Runs the library's functions on the queue.

    Args:
        library: loaded if the server does not have it.
        timeout_seconds: for every call, waiting included.
    """

    def __init__(self, address: Address, library: Library, timeout_seconds: float) -> None:
        self.address = address
        self.closed = False
        self._library = library
        self._timeout_seconds = timeout_seconds
        self._home = Home()
        self._turns = asyncio.Semaphore(_MAX_CONNECTIONS)
        tls_files: dict[str, Any] = {**address.tls_files}
        self._client = Redis(
            host=address.host,
            port=address.port,
            db=address.database,
            username=address.username,
            password=address.password,
            ssl=address.tls,
            **tls_files,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # repeating a call after a lost answer would store changes twice
            socket_timeout=None,  # every call has its own time-out
            socket_connect_timeout=timeout_seconds,
        )

    async def examine(self) -> tuple[str, ...]:
        """Check the server; see `examine`."""
        async with self._bounded():
            return await examine(self._client, self.address)

    async def has_queue(self) -> bool:
        """Whether a queue exists already; does not load the library."""
        async with self._bounded():
            return await self._client.hget(f"{self.address.base}queue", "schema") is not None

    async def call(self, function: str, *arguments: bytes | str | int) -> Any:  # noqa: ANN401 -- the function's result
        """Run a function of the library on the queue's keys.

        A call that the server may have carried out is not repeated: if its answer is lost, the caller gets an error.

        Raises:
            QueueUnavailable: nothing was done; or the answer was lost, and it may have been done.
            QueueUnusable: the server does not permit the call (any more).
            QueueMisnamed: it is a node of a cluster.
        """
        if self.closed:
            raise RuntimeError("the queue is closed")
        name, base = f"{self._library.name}_{function}", self.address.base
        async with self._bounded(), self._turns:
            try:
                return await self._client.fcall(name, 1, base, *arguments)
            except DRIVER_ERRORS as error:
                if not is_function_missing(error):
                    raise
            await self._load()
            return await self._client.fcall(name, 1, base, *arguments)

    async def read_news(self, after: bytes, *, wait_seconds: float) -> bytes | None:
        """Wait until something is put, on a separate connection.

        Args:
            after: the last result; ``0`` at first, which returns at once if anything was ever put.

        Returns:
            The new position; None if nothing was put for so long.

        Raises:
            QueueError: the server does not answer, or does not permit it.
        """
        key = f"{self.address.base}news"
        async with self._bounded(wait_seconds):
            # [[key, [[entry, fields]]]] in our protocol version; the driver's types cover all versions.
            found: Any = await self._client.xread({key: after}, count=1, block=round(wait_seconds * 1_000))
        return found[0][1][-1][0] if found else None

    async def close(self) -> None:
        """Close the connections."""
        self._home.check()
        self.closed = True
        with suppress(*DRIVER_ERRORS, TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await self._client.aclose()

    async def _load(self) -> None:
        try:
            await self._client.function_load(self._library.source, replace=True)
        except DRIVER_ERRORS as error:
            if is_full(error):
                raise unavailable(self.address, _NO_ROOM_FOR_FUNCTIONS) from None
            raise

    @asynccontextmanager
    async def _bounded(self, more_seconds: float = 0.0) -> AsyncIterator[None]:
        """Bound the time, and turn the driver's errors into a `QueueError`."""
        self._home.check()
        try:
            async with asyncio.timeout(self._timeout_seconds + more_seconds):
                try:
                    yield
                except DRIVER_ERRORS as error:
                    if is_demoted(error):  # the next call resolves the name again and finds the new primary
                        with suppress(*DRIVER_ERRORS):
                            await self._client.aclose()
                    raise explained(error, self.address, self.address.secrets) from None
        except TimeoutError:
            what = f"it did not answer within {self._timeout_seconds:g} seconds"
            raise unavailable(self.address, what) from None
