"""Sign-in links, made from a file that the worker writes and only its own user can read."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from worker.web.access import make_ticket

_SYSTEMD = Path("/run/metasync")  # the unit's RuntimeDirectory, for an administrator


class _Left(msgspec.Struct):
    """The file's content.

    Args:
        url: of the page.
        key: signs tickets.
    """

    url: str
    key: str


@contextmanager
def left_for_people(host: str, port: int, key: str, *, is_needed: bool) -> Iterator[None]:
    """Let `metasync page` find this worker while it serves.

    Args:
        is_needed: whether there is no other way to sign in; if so, a failure to write the file is logged.
    """
    try:
        descriptor, path = _open(port)
    except OSError as error:
        if is_needed:
            structlog.get_logger().warning("web.no_link", error=str(error))
        yield
        return
    try:
        os.write(descriptor, msgspec.json.encode(_Left(_url(host, port), key)))
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def links(port: int | None, unix_now: float) -> list[str]:
    """Make sign-in links to this user's workers on this machine, each valid for one session.

    Args:
        port: only the worker on this port; None for all.
    """
    name = "page-*.json" if port is None else f"page-{port}.json"
    found = [_read(path) for folder in _folders(reading=True) for path in sorted(folder.glob(name))]
    return [f"{left.url}/sign-in#ticket={make_ticket(left.key, unix_now)}" for left in found if left is not None]


def _open(port: int) -> tuple[int, Path]:
    """Create the file in the first folder that accepts it.

    Raises:
        OSError: none does; the error is the last folder's.
    """
    failure = OSError("there is no place for it")
    for folder in _folders(reading=False):
        path = folder / f"page-{port}.json"
        try:
            return _made(path), path
        except OSError as error:
            failure = error
    raise failure


def _made(path: Path) -> int:
    """Create the file, empty and locked; the lock shows readers that the worker is alive."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.parent == _shared() and not _is_ours(path.parent):
        raise PermissionError(f"{path.parent} belongs to somebody else")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _read(path: Path) -> _Left | None:
    """Return the file's content; None unless its worker is alive."""
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its worker is alive
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(file.read(), type=_Left)
    return None


def _folders(*, reading: bool) -> Iterator[Path]:
    """Yield the folders that may hold the file, the best one first."""
    if directory := os.environ.get("RUNTIME_DIRECTORY"):  # set by systemd; one folder or several
        yield Path(directory.partition(":")[0])
    elif reading and _SYSTEMD.is_dir():
        yield _SYSTEMD
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(directory) / "metasync"
    with suppress(OSError):  # there is no place for temporary files
        if not reading or _is_ours(_shared()):
            yield _shared()


def _shared() -> Path:
    return Path(tempfile.gettempdir()) / f"metasync-{os.geteuid()}"


def _is_ours(folder: Path) -> bool:
    """Whether the folder is our own: in a shared place, another user could have made it first."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- replaced, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
