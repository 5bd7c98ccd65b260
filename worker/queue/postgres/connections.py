"""A few connections, and transactions on them: each within a time-out, each failure explained, none left half-done."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar

import asyncpg

from worker.queue.errors import QueueUnavailable
from worker.queue.postgres.address import Address
from worker.queue.postgres.errors import explained, is_demoted

T = TypeVar("T")
P = ParamSpec("P")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MAX_CONNECTIONS = 4
_CLEAN_UP_SECONDS = 1.0
_MAX_ATTEMPTS = 5
_FOREVER_SECONDS = 86_400.0  # the call's own time-out comes first

# The server's own patience ends before ours, so that we hear the true reason and nothing goes on in vain.
_LOCK_SHARE, _STATEMENT_SHARE = 0.8, 0.9
# Whoever waits for a lock holds others, and who wants one of those waits as well, be it only for what has nothing to do
# with the first. So a transaction that cannot have a lock within this is rolled back, and begins again after a pause:
# others get through meanwhile. Each time it waits longer, up to the second of the two.
_FIRST_LOCK_SECONDS, _LONGEST_LOCK_SECONDS = 0.25, 1.0
_LONGEST_LOCK_SHARE = 0.1

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
        self.demotions = 0  # how often it was found out that the connections made so far lead to the wrong server
        self.opened = 0  # so many were made for transactions, ever
        self._timeout_seconds = timeout_seconds
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._begin = partial(
            _BEGIN.format,
            statement_ms=_milliseconds(timeout_seconds * _STATEMENT_SHARE),
            idle_ms=_milliseconds(timeout_seconds),
        )

    async def transact(
        self, work: Callable[Concatenate[Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run the function in a transaction and commit it.

        Args:
            work: called with a connection and the other arguments; again after a deadlock or where a lock could not
                be had, so it must have no effect but on the database.

        Raises:
            QueueUnavailable: nothing was changed; or the connection was lost with the answer on its way.
            QueueUnusable: waiting will not help.
        """
        async with self.call(), self._slots:
            started_at = time.monotonic()
            failures = 0
            lock_seconds = _FIRST_LOCK_SECONDS
            while True:
                try:
                    return await self._attempt(lambda connection: work(connection, *args, **kwargs), lock_seconds)
                except _TRANSIENT:
                    failures += 1
                    if failures == _MAX_ATTEMPTS:
                        raise
                except asyncpg.LockNotAvailableError:
                    if time.monotonic() - started_at >= self._timeout_seconds * _LOCK_SHARE:
                        raise
                    await asyncio.sleep(self._bearable(lock_seconds) * random.uniform(0.5, 1))  # noqa: S311 -- no secret
                    lock_seconds = min(lock_seconds * 2, _LONGEST_LOCK_SECONDS)

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
            if is_demoted(error):  # the name may lead to its successor by now
                self.demotions += 1
                self._drop_idle()
            error_explained = explained(error, self.address.shown)
            if error_explained is None:
                raise
            raise error_explained from None

    async def connect(self) -> Connection:
        """Open a connection; the caller bounds the time and explains what goes wrong."""
        # A proxy gives every transaction another connection: what was prepared on one is unknown on the next.
        address = self.address
        try:
            return await asyncpg.connect(
                address.dsn,
                timeout=address.connect_seconds or _FOREVER_SECONDS,
                ssl=address.tls,
                statement_cache_size=100 if address.listens else 0,
            )
        except TimeoutError as error:  # the driver's, or the system's, which has words
            raise ConnectionError(str(error) or "connecting took longer than connect_timeout") from None

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

    def begin_sql(self, lock_seconds: float = _FIRST_LOCK_SECONDS) -> str:
        """Give what begins a transaction that waits so long, at most, for a lock."""
        return self._begin(lock_ms=_milliseconds(self._bearable(lock_seconds)))

    def _bearable(self, lock_seconds: float) -> float:
        """So long to wait for a lock that there is time for another attempt."""
        return min(lock_seconds, self._timeout_seconds * _LONGEST_LOCK_SHARE)

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]], lock_seconds: float) -> T:
        demotions = self.demotions
        connection = await self._begun(self.begin_sql(lock_seconds))
        try:
            result = await work(connection)
            await connection.execute("COMMIT")
        except BaseException:
            await self._roll_back(connection, demotions)
            raise
        self._keep(connection, demotions)
        return result

    def _keep(self, connection: Connection, demotions: int) -> None:
        """Have it for the next call, unless it was found out meanwhile that it leads to the wrong server."""
        if demotions == self.demotions:
            self._idle.append(connection)
        else:
            connection.terminate()

    async def _begun(self, begin: str) -> Connection:
        """A connection in a new transaction. One that was lost while it was idle is replaced without a word."""
        while self._idle:
            connection = self._idle.pop()
            with suppress(Exception):  # the driver may say so in many ways; what stands in our way is met again below
                await _begin_on(connection, begin)
                return connection
        connection = await self.connect()
        self.opened += 1
        await _begin_on(connection, begin)
        return connection

    async def _roll_back(self, connection: Connection, demotions: int) -> None:
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
            self._keep(connection, demotions)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()


async def _begin_on(connection: Connection, begin: str) -> None:
    try:
        await connection.execute(begin)
    except BaseException:
        connection.terminate()
        raise


async def close(connection: Connection) -> None:
    """Say goodbye to the server, or just go."""
    try:
        await connection.close(timeout=_CLEAN_UP_SECONDS)
    except Exception:  # noqa: BLE001 -- gone is gone
        connection.terminate()


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1_000))
