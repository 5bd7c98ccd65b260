"""A small pool of connections, and transactions on them: each within a time-out, and each failure explained."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar

import asyncpg

from worker.queue.errors import QueueUnavailable
from worker.queue.home import Home
from worker.queue.postgres.address import Address
from worker.queue.postgres.errors import explained, is_demoted

T = TypeVar("T")
P = ParamSpec("P")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MAX_CONNECTIONS = 4
_CLEAN_UP_SECONDS = 1.0
_MAX_ATTEMPTS = 5
_FOREVER_SECONDS = 86_400.0  # the time-out of the call is shorter

# The server gives up before we do, so that we learn the true reason, and it does not go on in vain.
_LOCK_SHARE, _STATEMENT_SHARE = 0.8, 0.9
# A transaction that waits for a lock holds other locks, and blocks all who need those. So a transaction that cannot get
# a lock in time is rolled back, and starts again after a pause, in which others get through. Each time it waits longer,
# up to the second value.
_FIRST_LOCK_SECONDS, _LONGEST_LOCK_SECONDS = 0.25, 1.0
_LONGEST_LOCK_SHARE = 0.1

# Settings that a role or a database may have set otherwise. They are part of every transaction, since a proxy that
# pools transactions keeps no settings of a session.
#   * A function in another schema, such as public.unnest(text[]), fits better than the server's own unnest(anyarray).
#     The search path keeps out what others may have put there, to be run with our rights.
#   * Where a policy hides rows from our role, a statement fails. Otherwise the queue would seem to be empty.
#   * A queue's tables are empty now and full in a minute, so the planner's statistics are wrong. The last settings
#     leave it the plans whose cost does not grow with a table.
_BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = {statement_ms};
SET LOCAL lock_timeout = {lock_ms};
SET LOCAL idle_in_transaction_session_timeout = {idle_ms};
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL row_security = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
"""

# A proxy tells other numbers than those of the server's processes. One row is the answer: the driver then prepares no
# statement, which would stay with a connection of the proxy's.
_IS_DIRECT = ("SELECT WHERE pg_backend_pid() = {process}", "SELECT 1")
_PROCESS = "SELECT pg_backend_pid()"
_PROXY_SECONDS = 1.0

# Nothing was changed, and the same transaction may succeed at once.
_TRANSIENT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.InvalidCachedStatementError)


class Connections:
    """Up to `MAX_CONNECTIONS` connections to one server, made when they are needed.

    Args:
        timeout_seconds: of every call, with the wait for a connection.
    """

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self.address = address
        self.closed = False
        self.demotions = 0  # how often the connections turned out to lead to a server without writes
        self.opened = 0  # connections ever made for transactions
        self._timeout_seconds = timeout_seconds
        self._home = Home()
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
            work: called with a connection and the other arguments. It is called again after a deadlock or a lock
                time-out, so it must have no effect outside the database.

        Raises:
            QueueUnavailable: nothing was changed, or the connection was lost before the answer came.
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
        """A context that bounds its body by the time-out, and explains its errors."""
        self._home.check()
        if self.closed:
            raise RuntimeError("the queue is closed")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError:
            self._drop_idle()  # the other connections may be dead, too
            raise QueueUnavailable(
                f"the queue at {self.address.shown} did not answer within {self._timeout_seconds:g} seconds"
            ) from None
        except Exception as error:
            if is_demoted(error):  # the name may lead to the new server by now
                self.demotions += 1
                self._drop_idle()
            error_explained = explained(error, self.address.shown, self.address.secrets)
            if error_explained is None:
                raise
            raise error_explained from None

    async def connect(self) -> Connection:
        """Open a connection. The caller bounds the time, and explains errors."""
        # A proxy gives every transaction another connection, on which a prepared statement is unknown.
        return await self._connect(prepares=self.address.listens)

    async def _connect(self, *, prepares: bool) -> Connection:
        address = self.address
        try:
            return await asyncpg.connect(
                address.dsn,
                timeout=address.connect_seconds or _FOREVER_SECONDS,
                ssl=address.tls,
                statement_cache_size=100 if prepares else 0,
            )
        except TimeoutError as error:  # the driver's time-out has no text, the system's has
            raise ConnectionError(str(error) or "connecting took longer than connect_timeout") from None

    async def notice_pooling(self) -> None:
        """Stop listening and preparing, before anything else, if a proxy pools transactions."""
        if not self.address.listens:
            return
        async with self.call():
            connection = await self.connect()
            if await self.is_pooled(connection):
                await close(connection)
                self.address = self.address.deaf()
            else:
                self._idle.append(connection)

    async def is_pooled(self, connection: Connection) -> bool:
        """Whether a proxy gives each transaction of this connection any session: nothing can be listened to then.

        The caller bounds the time, and explains errors.
        """
        statement, answer = _IS_DIRECT
        if await connection.execute(statement.format(process=connection.get_server_pid())) == answer:
            return False
        made: list[Connection] = []
        try:
            async with asyncio.timeout(_PROXY_SECONDS):
                for _ in range(2):
                    made.append(await self._connect(prepares=False))  # noqa: PERF401 -- closed even if one fails
                first, second, again = [await _process(made[i]) for i in (0, 1, 0)]
        except (TimeoutError, OSError, asyncpg.PostgresError):  # it may have none left: what works without is tried
            return False
        finally:
            for each in made:
                await close(each)
        return first == second or first != again

    async def close(self) -> None:
        """Wait for the calls under way, for no longer than a call may take, then close."""
        self._home.check()
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
        """Return the statements that begin a transaction with this lock time-out."""
        return self._begin(lock_ms=_milliseconds(self._bearable(lock_seconds)))

    def _bearable(self, lock_seconds: float) -> float:
        """A lock time-out that leaves time for another attempt."""
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
        """Keep the connection for the next call, unless it turned out to lead to the wrong server."""
        if demotions == self.demotions:
            self._idle.append(connection)
        else:
            connection.terminate()

    async def _begun(self, begin: str) -> Connection:
        """A connection in a new transaction. An idle connection that was lost is replaced silently."""
        while self._idle:
            connection = self._idle.pop()
            with suppress(Exception):  # the driver has many errors for this; a lasting one shows again below
                await _begin_on(connection, begin)
                return connection
        connection = await self.connect()
        self.opened += 1
        await _begin_on(connection, begin)
        return connection

    async def _roll_back(self, connection: Connection, demotions: int) -> None:
        """Roll back; drop the connection if it does not answer at once."""
        try:
            # If the caller was cancelled, the driver has told the server to cancel the statement.
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


async def _process(connection: Connection) -> int:
    """The server's process that a transaction of this connection runs in."""
    async with connection.transaction():
        process: int = await connection.fetchval(_PROCESS)
    return process


async def close(connection: Connection) -> None:
    """Close the connection, or drop it if the server does not answer."""
    try:
        await connection.close(timeout=_CLEAN_UP_SECONDS)
    except Exception:  # noqa: BLE001 -- gone is gone
        connection.terminate()


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1_000))
