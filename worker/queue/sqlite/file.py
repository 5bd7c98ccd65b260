"""The queue's file: where it lies, whether it is one of ours, and how a connection to it is set up."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import apsw

from worker.queue.base import QueueError, QueueUnavailable, QueueUnusable, QueueUnwritable
from worker.queue.sqlite.statements import migrations

# Marks a SQLite file as a queue of ours; the first migration writes it.
APPLICATION_ID = 0x6D737163

_PREFIX = "sqlite:///"
_NO_PATH = re.compile("[\0\ud800-\udfff]")  # SQLite takes UTF-8 that ends with NUL
_BUSY_POLL_SECONDS = 0.01
_SMALLEST_DATABASE = 512  # bytes: one page of the smallest size, https://sqlite.org/fileformat2.html
_SETTINGS = """
PRAGMA synchronous = FULL; -- a commit survives the loss of power
PRAGMA fullfsync = ON; -- on macOS, where an ordinary fsync does not reach the disk
PRAGMA cache_size = -4000; -- KiB: what a drain touches is small, and the same however much waits
PRAGMA wal_autocheckpoint = 0; -- the writer does that when its callers have their answers
PRAGMA journal_size_limit = 67108864; -- bytes: what the log may keep of the disk after a large transaction
"""

_LOCKED = "another process holds the write lock"
_UNAVAILABLE = {
    apsw.BusyError: _LOCKED,
    apsw.LockedError: _LOCKED,
    apsw.ProtocolError: _LOCKED,
    apsw.NoMemError: "SQLite has run out of memory",
}
_UNWRITABLE = {apsw.FullError: "the disk is full", apsw.IOError: "reading or writing failed ({code})"}
_UNOPENED = "it cannot be opened for writing, or its directory cannot be written to"
_BROKEN_SCHEMA = "its schema is not what it should be ({error})"
_UNUSABLE = {
    apsw.CantOpenError: _UNOPENED,
    apsw.ReadOnlyError: _UNOPENED,
    apsw.PermissionsError: _UNOPENED,
    apsw.NotADBError: "it is not a SQLite database",
    apsw.CorruptError: "it is damaged ({error})",
    apsw.SQLError: _BROKEN_SCHEMA,
    apsw.SchemaChangeError: _BROKEN_SCHEMA,
}


class QueueFile:
    """One file that is, or is to become, a queue.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; ``%3F`` stands for a question mark.

    Raises:
        QueueUnusable: the URL is not of this form.
    """

    __slots__ = ("_identity", "path")

    def __init__(self, url: str) -> None:
        self.path = _path(url)
        self._identity: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<QueueFile {self.path}>"

    def connect(self, busy_timeout_seconds: float) -> apsw.Connection:
        """Open the file, making it or its schema where they are missing; a file that is not ours is left as it is.

        Args:
            busy_timeout_seconds: how long to wait for other processes, here and later.

        Raises:
            QueueUnusable: this is no place for a queue.
            QueueUnavailable: other processes are in the way.
        """
        self._check_place()
        with self.explained():
            connection = apsw.Connection(str(self.path))
            try:
                connection.set_busy_timeout(int(busy_timeout_seconds * 1_000))
                self._check_ours(connection)
                self._set_up(connection, busy_timeout_seconds)
                self._migrate(connection)
            except BaseException:
                connection.close()
                raise
        self._identity = self._identity_now()
        return connection

    def check_in_place(self) -> None:
        """Raise `QueueUnusable` if the file at the path is no longer the one that was opened.

        SQLite would go on writing to a file that has been moved or deleted, and all of it would be lost.
        """
        if self._identity_now() != self._identity:
            raise self._unusable("it was moved, deleted or replaced while it was open; start again")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what SQLite raises into a `QueueError`; programming errors pass."""
        try:
            yield
        except apsw.Error as error:
            explained = self._explained(error)
            if explained is None:
                raise
            raise explained from None

    def _explained(self, error: apsw.Error) -> QueueError | None:
        for kind, what in _UNAVAILABLE.items():
            if isinstance(error, kind):
                return QueueUnavailable(f"the queue {self.path} cannot be used now: {what}")
        for kind, what in _UNWRITABLE.items():
            if isinstance(error, kind):
                code = getattr(error, "extendedresult", 0)
                code_name = apsw.mapping_extended_result_codes.get(code, code)
                return QueueUnwritable(f"the queue {self.path} cannot be written: {what.format(code=code_name)}")
        for kind, what in _UNUSABLE.items():
            if isinstance(error, kind):
                return self._unusable(what.format(error=error))
        return None

    def _check_place(self) -> None:
        try:
            if self.path.is_dir():
                raise self._unusable("it is a directory, not a file")
            if not self.path.parent.is_dir():
                raise self._unusable(f"there is no directory {self.path.parent}")
            if self.path.exists() and 0 < self.path.stat().st_size < _SMALLEST_DATABASE:  # SQLite would overwrite it
                raise self._unusable("it is not a SQLite database")
        except OSError as error:  # a name that is too long, a directory that may not be looked into
            raise self._unusable(f"{error.strerror}") from error

    def _check_ours(self, connection: apsw.Connection) -> None:
        """Raise unless the file is ours or empty; what is refused here is left as it was, its log included."""
        if connection.readonly("main"):
            raise apsw.ReadOnlyError
        log = self.path.with_name(f"{self.path.name}-wal")
        has_log = log.exists() and log.stat().st_size > 0
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)
        # All of it as it was at one moment: another process may be making the schema.
        connection.execute("BEGIN")
        self._schema_version(connection)
        connection.execute("COMMIT")
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, False)

    def _schema_version(self, connection: apsw.Connection) -> int:
        """The file's schema version, 0 when it is empty.

        Raises:
            QueueUnusable: it is somebody else's, or newer than this code.
        """
        application_id = connection.pragma("application_id")
        version = connection.pragma("user_version")
        if application_id != APPLICATION_ID:
            _, *tables = connection.execute("PRAGMA main.table_list").fetchall()  # the first is SQLite's own
            if application_id or version or tables:
                raise self._unusable("it is a database of another program; name a new file")
            return 0
        latest, _ = migrations()[-1]
        if not isinstance(version, int) or version > latest:
            raise self._unusable(
                f"a newer metasync wrote it (schema {version}, this one knows {latest}); upgrade metasync"
            )
        return version

    def _set_up(self, connection: apsw.Connection, timeout_seconds: float) -> None:
        if connection.pragma("journal_mode") != "wal" and _switch_to_wal(connection, timeout_seconds) != "wal":
            raise self._unusable("its file system cannot share a write-ahead log; use a local disk")
        for _ in connection.execute(_SETTINGS):
            pass

    def _migrate(self, connection: apsw.Connection) -> None:
        latest, _ = migrations()[-1]
        if connection.pragma("user_version") == latest:
            return
        connection.execute("BEGIN IMMEDIATE")
        version = self._schema_version(connection)  # another process may have been faster
        for leads_to, sql in migrations():
            if leads_to > version:
                connection.execute(sql)
        connection.execute("COMMIT")

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _unusable(self, what: str) -> QueueUnusable:
        return QueueUnusable(f"{self.path} cannot be the queue: {what}")


def _path(url: str) -> Path:
    path = unquote(url.removeprefix(_PREFIX))
    if not url.startswith(_PREFIX) or path in ("", ":memory:") or _NO_PATH.search(path):
        raise QueueUnusable("the queue URL must be sqlite:///relative.db or sqlite:////absolute.db")
    if "?" in url:
        raise QueueUnusable("a SQLite queue's URL takes no options: leave out what begins with '?'")
    return Path.cwd() / path


def _switch_to_wal(connection: apsw.Connection, timeout_seconds: float) -> object:
    """Ask until nobody else has the file open in the old mode: SQLite does not wait by itself here."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_SECONDS)
