"""Temporary files, which take room below TMPDIR: what to say if there is none."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress


class NoRoom(Exception):
    """A temporary file cannot be made or written; the sentence says where, and why. That may pass."""


@contextmanager
def explained(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of temporary files into `NoRoom`.

    Args:
        kinds: errors that say so, beside `OSError`.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, *kinds)):
            raise
        where = ""
        with suppress(OSError):  # no folder can be written: the error has a list of those that were tried
            where = f" in {tempfile.gettempdir()}"
        what = getattr(error, "strerror", None) or error
        raise NoRoom(f"the temporary file cannot be written{where}: {what}; TMPDIR names another place") from None


def explained_of_sqlite() -> AbstractContextManager[None]:
    """Do the same for a temporary file that SQLite keeps."""
    import apsw  # noqa: PLC0415 -- slow to import, and who keeps such a file has imported it

    return explained(apsw.FullError, apsw.IOError, apsw.CantOpenError)


def temporary_folder(prefix: str) -> "tempfile.TemporaryDirectory[str]":
    """Make a folder, to be cleaned up by the caller.

    Raises:
        NoRoom: there is no place for it.
    """
    with explained():
        return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
