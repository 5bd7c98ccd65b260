"""The connection to a server or a cluster: calls of the library's functions, each within the time-out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.queue.redis.address import Address
from worker.queue.redis.errors import (
    DRIVER_ERRORS,
    explained,
    is_demoted,
    is_full,
    is_function_missing,
    unavailable,
)
from worker.queue.redis.examination import Findings, examine
from worker.queue.redis.library import Library

# Calls under way at once, each on a connection of its own; further ones wait.
_MAX_CONNECTIONS = 16

_NO_ROOM_FOR_FUNCTIONS = (
    "its memory is used up (maxmemory), and the queue's functions are not loaded; free some, or raise maxmemory"
)


class Server:
    """Runs the library's functions on the node that holds a shard. Made by `Server.open`.

    Args:
        client: for this address; the server closes it.
        library: loaded where it is missing.
        warnings: what can be lost, one sentence each.
        timeout_seconds: of every call, the waiting included.
    """

    def __init__(
        self,
        address: Address,
        client: Redis | RedisCluster,
        library: Library,
        warnings: tuple[str, ...],
        timeout_seconds: float,
    ) -> None:
        self.address = address
        self.warnings = warnings
        self.closed = False
        self._client = client
        self._library = library
        self._timeout_seconds = timeout_seconds
        self._turns = asyncio.Semaphore(_MAX_CONNECTIONS)

    @classmethod
    async def open(cls, address: Address, library: Library, *, timeout_seconds: float) -> Self:
        """Find out what is there, and connect to it.

        Raises:
            QueueUnusable: it is too old, or does not let us in.
            QueueUnavailable: it does not answer.
        """
        async with _explained(address, timeout_seconds):
            found = await _examine_at(address, address.host, address.port, timeout_seconds)
            if not found.is_cluster:
                client = _client(address, address.host, address.port, timeout_seconds)
                return cls(address, client, library, found.warnings, timeout_seconds)
            cluster = RedisCluster(address.host, address.port, **_arguments(address, timeout_seconds))
            try:
                await cluster.initialize()
                findings = [
                    await _examine_at(address, str(node.host), int(node.port), timeout_seconds)
                    for node in cluster.get_primaries()
                ]
            except BaseException:
                await cluster.aclose()
                raise
            warnings = dict.fromkeys(warning for each in findings for warning in each.warnings)
            return cls(address, cluster, library, tuple(warnings), timeout_seconds)

    def __repr__(self) -> str:
        return f"<Server {self.address} [{'closed' if self.closed else 'open'}]>"

    async def call(self, function: str, base: str, *arguments: bytes | str | int) -> Any:  # noqa: ANN401 -- what the function gives
        """Run a function of the library on the shard of this base name.

        Nothing is repeated that the server may have done: where its answer is lost, the caller is told.

        Raises:
            QueueUnavailable: nothing was done; or the answer was lost, and it may have been.
            QueueUnusable: the server does not let us, or not any longer.
        """
        if self.closed:
            raise RuntimeError("the queue is closed")
        async with _explained(self.address, self._timeout_seconds, on_error=self._failed), self._turns:
            name = f"{self._library.name}_{function}"
            try:
                return await self._client.fcall(name, 1, base, *arguments)
            except DRIVER_ERRORS as error:
                if not is_function_missing(error):
                    raise
            await self._load(base)
            return await self._client.fcall(name, 1, base, *arguments)

    async def close(self) -> None:
        """Close the connections."""
        self.closed = True
        with suppress(*DRIVER_ERRORS, TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await self._client.aclose()
                if isinstance(self._client, RedisCluster):
                    # Its own aclose closes nothing when an error has made it forget where the slots are.
                    await self._client.nodes_manager.aclose()
                    await self._client.nodes_manager.aclose("startup_nodes")

    async def _load(self, base: str) -> None:
        """Give the library to the node that holds the shard."""
        source = self._library.source
        try:
            if isinstance(self._client, RedisCluster):
                node = self._client.get_node_from_key(base)
                await self._client.execute_command("FUNCTION LOAD", "REPLACE", source, target_nodes=node)
            else:
                await self._client.function_load(source, replace=True)
        except DRIVER_ERRORS as error:
            if is_full(error):
                raise unavailable(self.address, _NO_ROOM_FOR_FUNCTIONS) from None
            raise

    async def _failed(self, error: Exception) -> None:
        """Let go of a server that lost its role: the next call looks its name up again, and finds its successor."""
        if is_demoted(error):
            with suppress(*DRIVER_ERRORS):
                await self._client.aclose()


@asynccontextmanager
async def _explained(
    address: Address, timeout_seconds: float, on_error: Callable[[Exception], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Bound the time, and turn what the driver raises into a `QueueError`."""
    try:
        async with asyncio.timeout(timeout_seconds):
            try:
                yield
            except DRIVER_ERRORS as error:
                if on_error is not None:
                    await on_error(error)
                raise explained(error, address) from None
    except TimeoutError:
        raise unavailable(address, f"it did not answer within {timeout_seconds:g} seconds") from None


async def _examine_at(address: Address, host: str, port: int, timeout_seconds: float) -> Findings:
    client = _client(address, host, port, timeout_seconds)
    try:
        return await examine(client, address)
    finally:
        await client.aclose()


def _client(address: Address, host: str, port: int, timeout_seconds: float) -> Redis:
    return Redis(host=host, port=port, db=address.database, **_arguments(address, timeout_seconds))


def _arguments(address: Address, timeout_seconds: float) -> dict[str, Any]:
    """Give what a connection to any node takes.

    The driver repeats nothing by itself: what it repeats after a lost answer would be stored twice.
    """
    return {
        "username": address.username,
        "password": address.password,
        "ssl": address.tls,
        **address.tls_files,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,  # every call has its own
        "socket_connect_timeout": timeout_seconds,
    }
