"""The link that signs a person in, made of what a worker leaves in a file that its own user alone can read."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from worker.web.access import make_ticket

_SYSTEMD = Path("/run/metasync")  # where the unit has its RuntimeDirectory, for an administrator who asks


class _Left(msgspec.Struct):
    """What the file holds.

    Args:
        url: of the page.
        key: what tickets are made with.
    """

    url: str
    key: str


@contextmanager
def left_for_people(host: str, port: int, key: str, *, is_needed: bool) -> Iterator[None]:
    """Have `metasync page` find this worker for as long as it serves.

    Args:
        is_needed: whether there is no other way to sign in; where no file can be left, that is logged then.
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
    """Links to the pages that workers of this user serve on this machine, each good for one session.

    Args:
        port: of which alone, unless it is None.
    """
    name = "page-*.json" if port is None else f"page-{port}.json"
    found = [_read(path) for folder in _folders(reading=True) for path in sorted(folder.glob(name))]
    return [f"{left.url}/sign-in#ticket={make_ticket(left.key, unix_now)}" for left in found if left is not None]


def _open(port: int) -> tuple[int, Path]:
    """Make the file in the first place that takes it.

    Raises:
        OSError: none does; what the last one had against it.
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
    """The file, empty and locked while it is open: whoever reads it knows by that that the worker is alive."""
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
    """What a worker that is alive has left here."""
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its worker holds it
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(file.read(), type=_Left)
    return None


def _folders(*, reading: bool) -> Iterator[Path]:
    """Where the file may be, the best place first."""
    if directory := os.environ.get("RUNTIME_DIRECTORY"):  # systemd's, one or several
        yield Path(directory.partition(":")[0])
    elif reading and _SYSTEMD.is_dir():
        yield _SYSTEMD
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(directory) / "metasync"
    if not reading or _is_ours(_shared()):
        yield _shared()


def _shared() -> Path:
    return Path(tempfile.gettempdir()) / f"metasync-{os.geteuid()}"


def _is_ours(folder: Path) -> bool:
    """Whether nobody else made it, where anybody can, before us."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- what is replaced
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
