"""A few connections, and transactions on them: each within a time-out, each failure explained, none left half-done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias, TypeVar

import asyncpg

from worker.queue.base import QueueUnavailable
from worker.queue.postgres.address import Address
from worker.queue.postgres.errors import explained

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MAX_CONNECTIONS = 4
_CLEAN_UP_SECONDS = 1.0
_MAX_ATTEMPTS = 5

# The server's own patience ends before ours, so that we hear the true reason and nothing goes on in vain.
_LOCK_SHARE, _STATEMENT_SHARE = 0.8, 0.9

# What a role or a database may be set to otherwise. It goes with every transaction: a proxy that pools transactions
# takes no settings of a session. A queue's tables are empty now and full in a minute, so the server is wrong about what
# is in them; of its ways to go about a statement, it is left those that do not grow with a table.
_BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = {statement_ms};
SET LOCAL lock_timeout = {lock_ms};
SET LOCAL idle_in_transaction_session_timeout = {idle_ms};
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
"""

# Nothing was changed, and the same may well succeed at once.
_TRANSIENT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.InvalidCachedStatementError)


class Connections:
    """Up to `MAX_CONNECTIONS` connections to one server, made when they are needed.

    Args:
        timeout_seconds: of every call, the waiting for a connection included.
    """

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self.address = address
        self.closed = False
        self._timeout_seconds = timeout_seconds
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._begin = _BEGIN.format(
            statement_ms=_milliseconds(timeout_seconds * _STATEMENT_SHARE),
            lock_ms=_milliseconds(timeout_seconds * _LOCK_SHARE),
            idle_ms=_milliseconds(timeout_seconds),
        )

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run the function in a transaction and commit it.

        Args:
            work: called with a connection; again after a deadlock, so it must have no effect but on the database.

        Raises:
            QueueUnavailable: nothing was changed; or the connection was lost with the answer on its way.
            QueueUnusable: waiting will not help.
        """
        async with self.call(), self._slots:
            for _ in range(_MAX_ATTEMPTS - 1):
                with suppress(*_TRANSIENT):
                    return await self._attempt(work)
            return await self._attempt(work)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Bound what is done within by the time-out, and explain what it raises."""
        if self.closed:
            raise RuntimeError("the queue is closed")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError:
            self._drop_idle()  # what became of this connection may have become of the others
            raise QueueUnavailable(
                f"the queue at {self.address.shown} did not answer within {self._timeout_seconds:g} seconds"
            ) from None
        except Exception as error:
            error_explained = explained(error, self.address.shown)
            if error_explained is None:
                raise
            raise error_explained from None

    async def connect(self) -> Connection:
        """Open a connection; the caller bounds the time and explains what goes wrong."""
        # A proxy gives every transaction another connection: what was prepared on one is unknown on the next.
        return await asyncpg.connect(self.address.dsn, statement_cache_size=100 if self.address.listens else 0)

    async def close(self) -> None:
        """Let the calls that are under way end, and close; waits no longer than a call may take."""
        if self.closed:
            return
        self.closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                for _ in range(MAX_CONNECTIONS):
                    await self._slots.acquire()
        while self._idle:
            await close(self._idle.pop())

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = await self._begun()
        try:
            result = await work(connection)
            await connection.execute("COMMIT")
        except BaseException:
            await self._roll_back(connection)
            raise
        self._idle.append(connection)
        return result

    async def _begun(self) -> Connection:
        """A connection in a new transaction. One that was lost while it was idle is replaced without a word."""
        while self._idle:
            connection = self._idle.pop()
            with suppress(Exception):  # the driver may say so in many ways; what stands in our way is met again below
                await self._begin_on(connection)
                return connection
        connection = await self.connect()
        await self._begin_on(connection)
        return connection

    async def _begin_on(self, connection: Connection) -> None:
        try:
            await connection.execute(self._begin)
        except BaseException:
            connection.terminate()
            raise

    async def _roll_back(self, connection: Connection) -> None:
        """End the transaction, whatever has become of it; a connection that does not say so at once is dropped."""
        try:
            # The driver has told the server to break off what it was at, where the caller has gone.
            await connection.execute("ROLLBACK", timeout=_CLEAN_UP_SECONDS)
        except Exception:  # noqa: BLE001 -- what led here is what the caller has to hear
            connection.terminate()
        except BaseException:
            connection.terminate()
            raise
        else:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()


async def close(connection: Connection) -> None:
    """Say goodbye to the server, or just go."""
    try:
        await connection.close(timeout=_CLEAN_UP_SECONDS)
    except Exception:  # noqa: BLE001 -- gone is gone
        connection.terminate()


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1_000))
