"""Read the bytes of a change file or standard input, compressed or not, with progress."""

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from worker.changes.patience import Patience, wait
from worker.changes.refusal import Refusal, UnreadableFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 256 * 1024

STDIN = "-"
STDIN_NAME = "<stdin>"

_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_LOOK_BYTES = 64 * 1024
_BEFORE_TEXT = b"\xef\xbb\xbf \t\r\n\v\f"


class DamagedData(Exception):
    """The rest of the data cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an open regular file.

    Args:
        start, end: byte positions.
    """

    descriptor: int
    start: int
    end: int


class ByteSource:
    """The bytes of one input, decompressed, a piece at a time.

    Args:
        path: a file, or ``-`` for standard input.
        gzipped: whether the name ends in ``.gz``. Gzip data is recognised without it, too.
        stdin: read for ``-`` instead of the process's own standard input; it stays open.
        stretch: read instead of the path; the descriptor stays open.
        patience: waits for slow input.
        copy: receives every piece before it is decompressed.

    Raises:
        UnreadableFile: the file is missing, a directory, not permitted, or not gzip although its name says so.
    """

    def __init__(
        self,
        path: str,
        *,
        gzipped: bool,
        stdin: BinaryIO | None = None,
        stretch: Stretch | None = None,
        patience: Patience | None = None,
        copy: Callable[[bytes], object] | None = None,
    ) -> None:
        self.name = STDIN_NAME if path == STDIN else path
        self.text_bytes = 0
        self._ahead = b""
        self._damage: DamagedData | None = None
        try:
            stream = _Stretch(stretch) if stretch else _open(path, stdin)
        except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
            raise self._unreadable(_reason(error)) from None
        self._raw = _Counted(stream, patience=patience, copy=copy)
        self._stream: io.BufferedReader | gzip.GzipFile = io.BufferedReader(self._raw, PIECE_BYTES)
        try:
            self._begin(gzipped=gzipped)
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int | None:
        """The size of a regular file; None for other input."""
        return self._raw.size_bytes

    @property
    def modified_at(self) -> float | None:
        """When a regular file was last changed, Unix time in seconds; None for other input."""
        return self._raw.modified_at

    @property
    def bytes_read(self) -> int:
        """How many bytes were read so far, before decompression."""
        return self._raw.bytes_read

    def look(self) -> bytes:
        """Return the start, up to the first non-blank line unless that is long; `read` returns it again."""
        start = self._ahead
        try:
            while len(start) < _LOOK_BYTES and b"\n" not in start.lstrip(_BEFORE_TEXT) and (piece := self._read()):
                start += piece
        except DamagedData as damage:
            self._damage = damage
        self._ahead = start
        return start

    def read(self) -> bytes:
        """Return the next piece as soon as one arrives; nothing at the end.

        Raises:
            DamagedData: the rest cannot be read.
        """
        piece, self._ahead = self._ahead, b""
        if not piece:
            if self._damage:
                raise self._damage
            piece = self._read()
        self.text_bytes += len(piece)
        return piece

    def kept(self) -> Stretch | None:
        """Return what was read so far as a stretch, to read it again; None if the input is no regular file."""
        return self._raw.kept()

    def close(self) -> None:
        self._stream.close()
        self._raw.close()

    def _read(self) -> bytes:
        try:
            return self._stream.read1(PIECE_BYTES)
        except EOFError:
            raise DamagedData("the gzip data ends too early: the file was cut off") from None
        except (gzip.BadGzipFile, zlib.error):
            raise DamagedData("the gzip data is damaged") from None
        except OSError as error:
            raise DamagedData(f"reading failed: {_reason(error)}") from None

    def _begin(self, *, gzipped: bool) -> None:
        try:
            start = self._raw.peek_magic()
        except OSError as error:  # such as `metasync enqueue - < directory`
            raise self._unreadable(_reason(error)) from None
        if start == _GZIP_MAGIC:
            self._stream = gzip.GzipFile(fileobj=self._stream, mode="rb")
        elif gzipped and start:
            raise self._unreadable("not gzip data, although the name ends in .gz")

    def _unreadable(self, reason: str) -> UnreadableFile:
        return UnreadableFile(Refusal(self.name, 0, reason))


class _Stream(Protocol):
    """A stream of bytes."""

    def read1(self, size: int, /) -> bytes: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class _Descriptor:
    """An open file, read without a buffer, since `select` does not see buffered bytes."""

    def __init__(self, descriptor: int, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._owned = owned

    def read1(self, size: int, /) -> bytes:
        return os.read(self._descriptor, size)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self._descriptor)


class _Stretch:
    """A part of an open file, read without moving the file's shared position."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._position = stretch.start

    def read1(self, size: int, /) -> bytes:
        data = os.pread(self._stretch.descriptor, min(size, self._stretch.end - self._position), self._position)
        self._position += len(data)
        return data

    def fileno(self) -> int:
        return self._stretch.descriptor

    def close(self) -> None:
        """Leave the descriptor open: the caller owns it."""


class _Foreign:
    """A stream that the caller opens and closes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read1(self, size: int, /) -> bytes:
        # read1 returns the bytes that have arrived, without waiting for a slow producer.
        data: bytes = getattr(self._stream, "read1", self._stream.read)(size)
        return data

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        """Leave the stream open: the caller closes it."""


class _Counted(io.RawIOBase):
    """A stream that counts bytes, allows to peek at the first ones, and waits for slow input."""

    def __init__(self, stream: _Stream, *, patience: Patience | None, copy: Callable[[bytes], object] | None) -> None:
        self.bytes_read = 0
        status = _status(stream)
        self.size_bytes = None if status is None else status.st_size
        self.modified_at = None if status is None else status.st_mtime
        self._stream = stream
        self._start = b""
        self._copy = copy
        self._wait = patience.wait if patience else wait
        self._is_slow = isinstance(stream, _Descriptor) and self.size_bytes is None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data, self._start = self._start[: len(view)], self._start[len(view) :]
        data = data or self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def peek_magic(self) -> bytes:
        """Return the first bytes, as many as the magic number has; they are still read afterwards."""
        while len(self._start) < len(_GZIP_MAGIC) and (data := self._read(len(_GZIP_MAGIC) - len(self._start))):
            self._start += data
        return self._start

    def kept(self) -> Stretch | None:
        """See `ByteSource.kept`."""
        if self.size_bytes is None or not isinstance(self._stream, _Descriptor):
            return None
        descriptor = os.dup(self._stream.fileno())
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        return Stretch(descriptor, end - self.bytes_read, end)

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._is_slow:
            self._wait(self._stream.fileno())
        data = self._stream.read1(size)
        self.bytes_read += len(data)
        if self._copy:
            self._copy(data)
        return data


def _status(stream: _Stream) -> os.stat_result | None:
    """Return the status of a regular file; None for other input."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # io.UnsupportedOperation: the stream has no file
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _open(path: str, stdin: BinaryIO | None) -> _Stream:
    if path != STDIN:
        # With O_NONBLOCK a named pipe opens at once, although its writer may come later or never.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError
        return _Descriptor(descriptor, owned=True)
    if stdin is not None:
        return _Foreign(stdin)
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    try:
        return _Descriptor(sys.stdin.fileno(), owned=False)
    except OSError:  # sys.stdin was replaced
        return _Foreign(sys.stdin.buffer)


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
