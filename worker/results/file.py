"""The results file: whole lines, one writing process at a time, readable by its owner only."""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

_MODE = 0o600  # with `--with-values` it holds data
_START = b'{"change":'  # of every line
_TAIL_BYTES = 65_536


class UnusableResults(Exception):
    """The file cannot be used for results; the message is one sentence that names it."""


class ResultsFile:
    """A file of results, open for appending.

    Lines of an earlier run stay. A partial last line, which a killed run left, is removed: lines are written before a
    change is settled, so that change is still in the queue.

    Raises:
        UnusableResults: it cannot be written, another process writes to it, or it holds other content.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if path == "-":
            raise UnusableResults("--results takes the name of a file, not -")
        if path.lower().endswith(".gz"):  # which readers would try to unpack
            raise self._unusable("its lines are not compressed, so leave .gz out of the name")
        try:
            # O_NONBLOCK: opening a pipe without a reader would wait for ever.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UnusableResults(f"{path}: results cannot be written there: {reason}") from None
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __repr__(self) -> str:
        return f"<ResultsFile {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._descriptor)

    def append(self, lines: bytes) -> None:
        """Write whole lines; once this returns, they survive the end of this process.

        Raises:
            OSError: none of them is in the file.
        """
        status = os.fstat(self._descriptor)
        if not status.st_nlink:  # the lines would vanish with this process
            raise FileNotFoundError(0, "it was deleted")
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, status.st_size)
            raise

    def _take(self) -> None:
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise self._unusable("it is no regular file")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._unusable("another process writes to it") from None
        except OSError:
            pass  # the file system has no locks; O_APPEND alone keeps lines whole there
        try:
            self._mend()
        except OSError as error:
            raise self._unusable(error.strerror or type(error).__name__) from None

    def _mend(self) -> None:
        """Remove a partial last line, if this is a results file.

        Raises:
            UnusableResults: it is none; it stays untouched.
        """
        size = os.fstat(self._descriptor).st_size
        start = os.pread(self._descriptor, len(_START), 0)
        if start != _START[: len(start)]:
            raise self._unusable("it holds something other than results")
        end = size
        while end:
            tail = os.pread(self._descriptor, min(end, _TAIL_BYTES), end - min(end, _TAIL_BYTES))
            newline = tail.rfind(b"\n")
            if newline >= 0:
                end += newline + 1 - len(tail)
                break
            end -= len(tail)
        if end < size:
            os.ftruncate(self._descriptor, end)

    def _unusable(self, what: str) -> UnusableResults:
        return UnusableResults(f"{Path(self.path)}: results cannot be written there: {what}")
