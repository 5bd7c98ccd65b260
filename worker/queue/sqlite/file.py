"""The queue's file: its place, whether it is a queue of ours, and how to set up a connection."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import apsw

from worker.queue.errors import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, QueueUnwritable, no_queue
from worker.queue.statements import read_migrations

Identity = tuple[int, int]  # of a file, independent of its name

# Marks a SQLite file as a queue of ours; the first migration writes it.
APPLICATION_ID = 0x6D737163

_PREFIX = "sqlite:///"
# SQLite takes UTF-8 up to a NUL; a control character, such as a newline, is a mistake.
_NO_PATH = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_MODE = 0o600
_BUSY_POLL_SECONDS = 0.01
_SMALLEST_DATABASE = 512  # bytes: one page of the smallest size, https://sqlite.org/fileformat2.html
_SETTINGS = """
PRAGMA synchronous = FULL; -- a commit survives the loss of power
PRAGMA fullfsync = ON; -- on macOS, where an ordinary fsync does not reach the disk
PRAGMA cache_size = -4000; -- KiB: what a drain touches is small, and the same however much waits
PRAGMA temp_store = MEMORY; -- a full or missing /tmp stops no call; a statement changes a few megabytes at most
PRAGMA secure_delete = ON; -- what is deleted is overwritten, not only forgotten: values of purged letters
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
_UNWRITABLE = {
    apsw.FullError: "the disk is full",
    apsw.IOError: "reading or writing failed ({code})",
}
_GONE = "it was moved or deleted while it was open; put it back, or have `metasync migrate` make a new one"
_LOG_ALONE = "it was moved or emptied, and its log {log} left behind; put it back, or move the log to where it is now"
_MOUNTS = Path("/proc/self/mountinfo")  # the fifth field of a line is a mount's place, with \040 for a space
_MOUNTED = (
    "{path} is mounted alone, and its log is left in this container: with it go the last changes, and other containers "
    "do not see them, and overwrite them; mount the folder"
)
_LINKED = (
    "{path} has {names} names (hard links), and a log for each: processes that use different ones overwrite each "
    "other's changes; use one, and a symbolic link for another"
)
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
    """One file that is, or will become, a queue.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; ``%3F`` stands for a question mark.
        create: create a missing file.

    Raises:
        QueueMisnamed: the URL has another form.
    """

    __slots__ = ("_beside", "_create", "_identity", "path")

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.path = _path(url)
        self._create = create
        self._identity: Identity | None = None
        self._beside: dict[Path, Identity | None] = {}  # the write-ahead log and its index

    def __repr__(self) -> str:
        return f"<QueueFile {self.path}>"

    def warnings(self) -> tuple[str, ...]:
        """What may lose changes: that the files beside it are not where other processes look for them."""
        path = os.path.realpath(self.path)
        found = []
        with suppress(OSError):  # no such system, or the file has gone
            if any(line.split()[4] == path.replace(" ", "\\040") for line in _MOUNTS.read_text().splitlines()):
                found.append(_MOUNTED.format(path=self.path))
        with suppress(OSError):
            if (names := self.path.stat().st_nlink) > 1:
                found.append(_LINKED.format(path=self.path, names=names))
        return tuple(found)

    @property
    def log(self) -> Path:
        """The write-ahead log, which receives commits before the file."""
        return self._with("-wal")

    def connect(self, busy_timeout_seconds: float) -> apsw.Connection:
        """Open the file; create it or its schema if missing; leave a foreign file untouched.

        A file that was open before and is missing now is not recreated: the user may put it back.

        Args:
            busy_timeout_seconds: how long to wait for other processes, here and later.

        Raises:
            QueueMisnamed: the path can never be a queue.
            QueueUnusable: it cannot be a queue now.
            QueueUnavailable: other processes hold it.
        """
        self._check_place()
        self._make_private()
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
        self._identity = _identity(self.path)
        self._beside = {path: _identity(path) for path in self._log_and_index()}
        return connection

    def is_in_place(self) -> bool:
        """Whether the path still names the opened file, and its log and index are beside it.

        SQLite would continue to write to a moved or deleted file, and the changes would be lost.

        Raises:
            QueueUnusable: there is no file.
        """
        found = _identity(self.path)
        if found is None:
            raise self._unusable(_GONE)
        return found == self._identity and all(_identity(path) == known for path, known in self._beside.items())

    def abandon(self, connection: apsw.Connection) -> None:
        """Close a file that was replaced, so that nothing of it gets into the new one; or whose log was deleted.

        The log of a moved file is beside the new file now, and has the name of its log. A deleted log is still open
        here, and what is in it is moved into the file.

        Raises:
            QueueUnusable: other processes still use the old file or log.
        """
        is_replaced = _identity(self.path) != self._identity
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            # Where only the log was deleted, the first who sees it moves it for all, and makes another.
            is_moved = not is_replaced and isinstance(error, apsw.IOError) and self.log.exists()
            if not is_moved:
                raise self._unusable("it or its log was replaced, and others are at work on the one before") from None
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        connection.close()
        if not is_replaced:
            return  # the index may be in use with the log that another has made
        for path in self._log_and_index():  # of the new file: behind a symbolic link, they may be others
            identity = _identity(path)
            if identity is not None and identity in self._beside.values():
                path.unlink(missing_ok=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn SQLite's errors into a `QueueError`; programming errors propagate."""
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
        if getattr(error, "result", apsw.SQLITE_OK) != apsw.SQLITE_OK:  # else it is a programming error, raised by apsw
            return QueueUnavailable(f"the queue {self.path} cannot be used now: {type(error).__name__} ({error})")
        return None

    def _check_place(self) -> None:
        try:
            if self.path.is_dir():
                raise self._misnamed("it is a directory, not a file")
            if not self._create and not (self.path.exists() and self.path.stat().st_size):
                raise no_queue(self.path)
            if not self.path.parent.is_dir():
                raise self._unusable(f"there is no directory {self.path.parent}")
            if self._identity is not None and not self.path.exists():
                raise self._unusable(_GONE)
            log_size = _size(self.log)  # first, because a new queue's file is written before its log
            size = _size(self.path)
            if size == 0 and log_size > 0:  # SQLite would delete the log and the commits in it
                raise self._unusable(_LOG_ALONE.format(log=self.log))
            if 0 < size < _SMALLEST_DATABASE:  # SQLite would overwrite it
                raise self._unusable("it is not a SQLite database")
        except OSError as error:  # the name is too long, or the directory not accessible
            raise self._unusable(f"{error.strerror}") from error

    def _make_private(self) -> None:
        """Create a missing file that only its owner can read, independent of the umask.

        SQLite gives the files beside it the same mode. An existing file keeps its mode.
        """
        with suppress(OSError):  # it exists; if it cannot be created, SQLite reports it
            descriptor = os.open(os.path.realpath(self.path), os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE)
            try:
                os.fchmod(descriptor, _MODE)
            finally:
                os.close(descriptor)

    def _check_ours(self, connection: apsw.Connection) -> None:
        """Raise unless the file is ours or empty; a refused file stays unchanged, its log included."""
        if connection.readonly("main"):
            raise apsw.ReadOnlyError
        log = self.log
        has_log = log.exists() and log.stat().st_size > 0
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)
        # Read in one transaction: another process may be creating the schema.
        connection.execute("BEGIN")
        version = self._schema_version(connection)
        connection.execute("COMMIT")
        if not version and not self._create:
            raise no_queue(self.path)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, False)

    def _schema_version(self, connection: apsw.Connection) -> int:
        """Return the file's schema version, 0 if it is empty.

        Raises:
            QueueMisnamed: it belongs to another program.
            QueueUnusable: it is newer than this code.
        """
        application_id = connection.pragma("application_id")
        version = connection.pragma("user_version")
        if application_id != APPLICATION_ID:
            _, *tables = connection.execute("PRAGMA main.table_list").fetchall()  # the first table is SQLite's own
            if application_id or version or tables:
                raise self._misnamed("it is a database of another program; name a new file")
            return 0
        latest, _ = read_migrations(__package__)[-1]
        if not isinstance(version, int) or version > latest:
            raise self._unusable(
                f"a newer metasync wrote it (schema {version}, this one knows {latest}); upgrade metasync"
            )
        return version

    def _set_up(self, connection: apsw.Connection, timeout_seconds: float) -> None:
        if connection.pragma("journal_mode") != "wal" and _switch_to_wal(connection, timeout_seconds) != "wal":
            raise self._misnamed("its file system cannot share a write-ahead log; use a local disk")
        for _ in connection.execute(_SETTINGS):
            pass
        # One plan for a statement, whatever its limits are: else SQLite plans a statement with one anew for each call.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)

    def _migrate(self, connection: apsw.Connection) -> None:
        latest, _ = read_migrations(__package__)[-1]
        if connection.pragma("user_version") == latest:
            return
        connection.execute("BEGIN IMMEDIATE")
        version = self._schema_version(connection)  # another process may have migrated it meanwhile
        for leads_to, sql in read_migrations(__package__):
            if leads_to > version:
                connection.execute(sql)
        connection.execute("COMMIT")

    def _log_and_index(self) -> tuple[Path, Path]:
        return self.log, self._with("-shm")

    def _with(self, ending: str) -> Path:
        """The file beside it, which is where a symbolic link leads to."""
        return Path(f"{os.path.realpath(self.path)}{ending}")

    def _unusable(self, what: str) -> QueueUnusable:
        return QueueUnusable(f"{self.path} cannot be the queue: {what}")

    def _misnamed(self, what: str) -> QueueMisnamed:
        return QueueMisnamed(f"{self.path} cannot be the queue: {what}")


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    """Return the size in bytes; 0 if there is no file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _path(url: str) -> Path:
    path = unquote(url.removeprefix(_PREFIX))
    if not url.startswith(_PREFIX) or path in ("", ":memory:") or _NO_PATH.search(path):
        raise QueueMisnamed("the queue URL must be sqlite:///relative.db or sqlite:////absolute.db")
    if "?" in url:
        raise QueueMisnamed("a SQLite queue's URL takes no options: leave out what begins with '?'")
    try:
        return Path.cwd() / path
    except FileNotFoundError:
        raise QueueMisnamed("the queue URL is relative to the working directory, which is not there any more") from None


def _switch_to_wal(connection: apsw.Connection, timeout_seconds: float) -> object:
    """Retry until no other process has the file open in the old mode; SQLite itself does not wait here."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_SECONDS)
