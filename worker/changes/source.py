"""Where the bytes of a change file come from: a file or standard input, compressed or not, with progress."""

import gzip
import io
import os
import stat
import sys
import zlib
from typing import TYPE_CHECKING, BinaryIO

from worker.changes.refusal import Refusal, UnreadableFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 256 * 1024

STDIN = "-"
STDIN_NAME = "<stdin>"

_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1


class DamagedData(Exception):
    """The data cannot be read any further; the message says why."""


class ByteSource:
    """The bytes of one input, decompressed, a piece at a time.

    Args:
        path: a file, or ``-`` for standard input.
        gzipped: True where the name promises gzip; data that is gzip is recognised in any case.
        stdin: what ``-`` reads instead of the process's own standard input. It is not closed.

    Raises:
        UnreadableFile: missing, a directory, no permission, empty, not gzip although the name says so.
    """

    def __init__(self, path: str, *, gzipped: bool = False, stdin: BinaryIO | None = None) -> None:
        self.name = STDIN_NAME if path == STDIN else path
        try:
            self._raw = _Counted(_open(path, stdin), owned=path != STDIN)
        except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
            raise self._unreadable(_reason(error)) from None
        self.size_bytes = self._raw.size()
        self._stream: io.BufferedReader | gzip.GzipFile = io.BufferedReader(self._raw, PIECE_BYTES)
        try:
            self._begin(gzipped=gzipped)
        except BaseException:
            self.close()
            raise

    @property
    def bytes_read(self) -> int:
        """How much was taken from the input so far, before decompression."""
        return self._raw.bytes_read

    def read(self) -> bytes:
        """Return the next piece as soon as there is any; nothing at the end.

        Raises:
            DamagedData: the rest cannot be had.
        """
        try:
            return self._stream.read1(PIECE_BYTES)
        except EOFError:
            raise DamagedData("the gzip data ends too early: the file was cut off") from None
        except (gzip.BadGzipFile, zlib.error):
            raise DamagedData("the gzip data is damaged") from None
        except OSError as error:
            raise DamagedData(f"reading failed: {_reason(error)}") from None

    def close(self) -> None:
        self._stream.close()
        self._raw.close()

    def _begin(self, *, gzipped: bool) -> None:
        try:
            start = self._raw.peek_magic()
        except OSError as error:  # such as `metasync enqueue - < directory`
            raise self._unreadable(_reason(error)) from None
        if not start:
            raise self._unreadable("the file is empty")
        if start == _GZIP_MAGIC:
            self._stream = gzip.GzipFile(fileobj=self._stream, mode="rb")
        elif gzipped:
            raise self._unreadable("not gzip data, although the name ends in .gz")

    def _unreadable(self, reason: str) -> UnreadableFile:
        return UnreadableFile(Refusal(self.name, 0, reason))


class _Counted(io.RawIOBase):
    """A stream that counts what is read of it and lets its first bytes be looked at."""

    def __init__(self, stream: BinaryIO, *, owned: bool) -> None:
        self.bytes_read = 0
        self._stream = stream
        self._owned = owned
        self._start = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data, self._start = self._start[: len(view)], self._start[len(view) :]
        data = data or self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def peek_magic(self) -> bytes:
        """Return the first bytes, as many as the magic number has, leaving them to be read."""
        while len(self._start) < len(_GZIP_MAGIC) and (data := self._read(len(_GZIP_MAGIC) - len(self._start))):
            self._start += data
        return self._start

    def size(self) -> int | None:
        """Return the size of a regular file; None where it is not known beforehand."""
        try:
            status = os.fstat(self._stream.fileno())
        except OSError:  # io.UnsupportedOperation: no file stands behind it
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def close(self) -> None:
        if self._owned:
            self._stream.close()
        super().close()

    def _read(self, size: int) -> bytes:
        # read1 hands over what has come already: a producer that writes slowly is not waited for.
        data: bytes = getattr(self._stream, "read1", self._stream.read)(size)
        self.bytes_read += len(data)
        return data


def _open(path: str, stdin: BinaryIO | None) -> BinaryIO:
    if path != STDIN:
        return open(path, "rb")  # noqa: PTH123 -- ByteSource closes it; the path is shown as it was given
    if stdin is not None:
        return stdin
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    return sys.stdin.buffer


def _reason(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case IsADirectoryError():
            return "this is a directory, not a file"
        case PermissionError():
            return "no permission to read it"
        case OSError(strerror=str(text)):
            return text[:1].lower() + text[1:]
        case _:
            return str(error)
