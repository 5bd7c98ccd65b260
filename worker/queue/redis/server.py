"""The connection to the server: calls of the library's functions, each within the time-out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.queue.redis.address import Address
from worker.queue.redis.errors import DRIVER_ERRORS, explained, is_demoted, is_full, is_function_missing, unavailable
from worker.queue.redis.examination import examine
from worker.queue.redis.library import Library

# Calls under way at once, each on a connection of its own; further ones wait.
_MAX_CONNECTIONS = 16

_NO_ROOM_FOR_FUNCTIONS = (
    "its memory is used up (maxmemory), and the queue's functions are not loaded; free some, or raise maxmemory"
)


class Server:
    """Runs the library's functions on the queue.

    Args:
        library: loaded where it is missing.
        timeout_seconds: of every call, the waiting included.
    """

    def __init__(self, address: Address, library: Library, timeout_seconds: float) -> None:
        self.address = address
        self.closed = False
        self._library = library
        self._timeout_seconds = timeout_seconds
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
            retry=Retry(NoBackoff(), 0),  # what it repeats after a lost answer would be stored twice
            socket_timeout=None,  # every call has its own
            socket_connect_timeout=timeout_seconds,
        )

    async def examine(self) -> tuple[str, ...]:
        """Find out what is there; see `examine`."""
        async with self._bounded():
            return await examine(self._client, self.address)

    async def has_queue(self) -> bool:
        """Whether there is a queue already; nothing is loaded to find out."""
        async with self._bounded():
            return await self._client.hget(f"{self.address.base}queue", "schema") is not None

    async def call(self, function: str, *arguments: bytes | str | int) -> Any:  # noqa: ANN401 -- what the function gives
        """Run a function of the library on the queue's keys.

        Nothing is repeated that the server may have done: where its answer is lost, the caller is told.

        Raises:
            QueueUnavailable: nothing was done; or the answer was lost, and it may have been.
            QueueUnusable: the server does not let us, or not any longer.
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
        """Wait until something is put, on a connection of its own.

        Args:
            after: what this gave last; ``0`` at first, which is answered at once where anything was ever put.

        Returns:
            what was heard, to go on after; None when nothing was put for so long.

        Raises:
            QueueError: the server does not answer, or does not let us.
        """
        key = f"{self.address.base}news"
        async with self._bounded(wait_seconds):
            # [[key, [[entry, fields]]]] by the protocol of our connections; the driver's types are those of all.
            found: Any = await self._client.xread({key: after}, count=1, block=round(wait_seconds * 1_000))
        return found[0][1][-1][0] if found else None

    async def close(self) -> None:
        """Close the connections."""
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
        """Bound the time, and turn what the driver raises into a `QueueError`."""
        try:
            async with asyncio.timeout(self._timeout_seconds + more_seconds):
                try:
                    yield
                except DRIVER_ERRORS as error:
                    if is_demoted(error):  # the next call looks the name up again, and finds the successor
                        with suppress(*DRIVER_ERRORS):
                            await self._client.aclose()
                    raise explained(error, self.address) from None
        except TimeoutError:
            what = f"it did not answer within {self._timeout_seconds:g} seconds"
            raise unavailable(self.address, what) from None
