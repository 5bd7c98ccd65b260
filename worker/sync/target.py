"""Where a pull writes: a pipe, standard output, or a file of whole lines that a later pull can resume."""

import asyncio
import fcntl
import gzip
import os
import secrets
import stat
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Self

from worker.sync.lines import Form, NotOurs, OnTerminal
from worker.sync.listing import REMEMBERED
from worker.threads import in_thread

_FLUSH_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_MODE: Final = 0o600  # its content may be private
_STDOUT: Final = 1
_GZIP_START: Final = b"\x1f\x8b\x08" + bytes(5)  # a member without name and time
_NAMES_OF_STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


class Unusable(Exception):
    """The target cannot be used; the sentence says why, and what to do."""


class Unwritable(Exception):
    """Writing failed midway; what was written before remains."""


class Gone(Unwritable):
    """The file was deleted while it was written: nothing of it is left."""


class Target:
    """Buffers whole lines, and writes them in pieces of whole lines.

    Args:
        name: for messages.
        blocks: whether a write may wait for a reader indefinitely.

    `lines` counts the file's lines, those of an earlier run included; `behind` has the ids of the last ones.
    """

    def __init__(self, descriptor: int, name: str, form: Form, *, gzipped: bool, blocks: bool) -> None:
        self.name = name
        self.form = form
        self.lines = 0
        self.behind = deque[str](maxlen=REMEMBERED)
        self._descriptor = descriptor
        self._gzipped = gzipped
        self._blocks = blocks
        self._is_stdout = descriptor == _STDOUT
        self._buffer: list[bytes] = []
        self._size = 0
        self._beside: tuple[str, str] | None = None  # the temporary file's name, and the name that it replaces
        self._old: int | None = None  # the old file, locked until it is replaced
        self._writing = asyncio.Lock()
        self._has_begun = False

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, which can be resumed; not a pipe or a device."""
        return not self._blocks

    @classmethod
    def stdout(cls, form: Form) -> Self:
        """Standard output.

        Raises:
            BrokenPipeError: it is closed.
        """
        if sys.stdout is None:
            raise BrokenPipeError
        sys.stdout.flush()
        if os.isatty(_STDOUT):
            form = OnTerminal(form)
        is_file = stat.S_ISREG(os.fstat(_STDOUT).st_mode)
        return cls(_STDOUT, "standard output", form, gzipped=False, blocks=not is_file)

    @classmethod
    def open(cls, path: str, form: Form, *, gzipped: bool, overwrite: bool = False, resume: bool = False) -> Self:
        """Open a file, pipe or device; a pipe is opened once it has a reader.

        Args:
            overwrite: replace an existing file, once there is something to write.
            resume: continue after the last whole line of an existing file.

        Raises:
            Unusable: it cannot be written, or exists already.
        """
        try:
            status = os.stat(path) if os.path.lexists(path) else None  # noqa: PTH116 -- the path is used as given
            if status is not None and not stat.S_ISREG(status.st_mode):
                return cls._open_stream(path, form, status, gzipped=gzipped, resume=resume)
            if status is None:
                return cls._open_new(path, form, gzipped=gzipped)
            if resume:
                return cls._open_again(path, form, gzipped=gzipped)
            if overwrite:
                return cls._open_beside(path, form, gzipped=gzipped)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Unusable(f"{path}: it cannot be written: {reason}") from None
        raise Unusable(f"{path}: it exists already: --resume continues it, --overwrite replaces it")

    @classmethod
    def _open_stream(cls, path: str, form: Form, status: os.stat_result, *, gzipped: bool, resume: bool) -> Self:
        if stat.S_ISDIR(status.st_mode):
            raise Unusable(f"{path}: this is a directory, not a file")
        if resume:
            raise Unusable(f"{path}: only a regular file can be resumed")
        return cls(os.open(path, os.O_WRONLY | os.O_CLOEXEC), path, form, gzipped=gzipped, blocks=True)

    @classmethod
    def _open_new(cls, path: str, form: Form, *, gzipped: bool) -> Self:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        try:
            _lock(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, path, form, gzipped=gzipped, blocks=False)

    @classmethod
    def _open_beside(cls, path: str, form: Form, *, gzipped: bool) -> Self:
        old = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(old, path)
            folder, name = os.path.split(os.path.realpath(path))  # a symbolic link stays one
            beside = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")  # noqa: PTH118 -- used as given
            target = cls._open_new(beside, form, gzipped=gzipped)
        except BaseException:
            os.close(old)
            raise
        target.name = path
        target._beside, target._old = (beside, os.path.join(folder, name)), old  # noqa: SLF001, PTH118 -- a constructor
        return target

    @classmethod
    def _open_again(cls, path: str, form: Form, *, gzipped: bool) -> Self:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(descriptor, path)
            os.fchmod(descriptor, _MODE)
            target = cls(descriptor, path, form, gzipped=gzipped, blocks=False)
        except BaseException:
            os.close(descriptor)
            raise
        target._has_begun = True  # `take_up` checks the header
        return target

    def __repr__(self) -> str:
        return f"<Target {self.name} [{self.lines} lines]>"

    def take_up(self, met: Callable[[str], object]) -> None:
        """Find the last whole line of a resumed file, and truncate the file after it.

        Args:
            met: called with the id of each completion in the file.

        Raises:
            Unusable: the file holds other content.
        """
        header, end, number = self.form.header, 0, 0
        try:
            for number, (line, line_end) in enumerate(_whole_lines(self._descriptor, gzipped=self._gzipped), 1):
                if number == 1 and header:
                    if line != header.rstrip(b"\n"):
                        raise NotOurs  # noqa: TRY301 -- handled like any other line
                else:
                    completion_id = self.form.id_of(line)
                    self.lines += 1
                    self.behind.append(completion_id)
                    met(completion_id)
                end = line_end
        except NotOurs:
            self._close()
            what = "header" if number == 1 and header else "line"
            where = f"{self.name}:{number}"
            raise Unusable(f"{where}: this {what} was not written by such a pull: it cannot be resumed") from None
        wanted = _GZIP_START if self._gzipped else self.form.start
        found = os.pread(self._descriptor, len(wanted), 0)
        if not end and found != wanted[: len(found)]:  # no part of a first line either
            self._close()
            raise Unusable(f"{self.name}: it was not written by such a pull: it cannot be resumed")
        os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)
        self._has_begun = end > 0

    def put(self, line: bytes) -> None:
        """Buffer a line, with its line end."""
        self._buffer.append(line)
        self._size += len(line)
        self.lines += 1

    @property
    def is_full(self) -> bool:
        """Whether the buffer is full, so that `flush` is due."""
        return self._size >= _FLUSH_BYTES

    async def flush(self) -> None:
        """Write the buffered lines.

        Raises:
            Unwritable: writing failed.
            BrokenPipeError: the reader has closed the pipe.
        """
        async with self._writing:
            data = self._taken()
            if not data:
                return
            if self._blocks:
                await in_thread(self._write, data)
            else:
                self._write(data)

    async def finish(self) -> None:
        """Write the rest, since the pull is complete. An old file is replaced now, even by an empty one."""
        await self.flush()
        self._take_place()
        if not self._has_begun and self.form.header:
            self._buffer.append(b"")
            await self.flush()

    def close(self) -> None:
        """Close the target, after writing what can be written without waiting."""
        with suppress(OSError, Unwritable):
            if not self._blocks and (data := self._taken()):
                self._write(data)
        self._close()

    def _close(self) -> None:
        if self._beside is not None:
            with suppress(OSError):
                os.unlink(self._beside[0])  # noqa: PTH108 -- the path is used as given
        for descriptor in (self._descriptor, self._old):
            if descriptor is not None and not (descriptor == _STDOUT and self._is_stdout):
                with suppress(OSError):
                    os.close(descriptor)
        self._descriptor, self._old, self._beside, self._is_stdout = _STDOUT, None, None, True

    def _taken(self) -> bytes:
        if not self._buffer:
            return b""
        data = b"".join(self._buffer)
        if not self._has_begun:
            data = self.form.header + data
            self._has_begun = True
        self._buffer, self._size = [], 0
        return gzip.compress(data, 6, mtime=0) if self._gzipped and data else data  # one member of whole lines

    def _write(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._take_place()
            status = os.fstat(self._descriptor)
            if stat.S_ISREG(status.st_mode) and not status.st_nlink and not self._is_stdout:
                raise Gone(f"{self.name} was deleted, or another file has taken its place")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(f"{self.name} cannot be written: {error.strerror}") from None

    def _take_place(self) -> None:
        if self._beside is not None:
            os.rename(*self._beside)  # noqa: PTH104 -- likewise
            self._beside = None


def is_stdout(path: str) -> bool:
    """Whether the path means standard output."""
    return path in ("-", *_NAMES_OF_STDOUT)


def _lock(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unusable(f"{path}: another pull is writing it") from None


def _whole_lines(descriptor: int, *, gzipped: bool) -> Iterator[tuple[bytes, int]]:
    """Yield each complete line, and the file position after it (in a gzip file, after its member)."""
    if gzipped:
        for member, end in _members(descriptor):
            if not member.endswith(b"\n"):
                raise NotOurs
            yield from ((line, end) for line in member.split(b"\n")[:-1])
        return
    start, end = b"", 0
    for piece in _pieces(descriptor):
        *lines, start = (start + piece).split(b"\n")
        for line in lines:
            end += len(line) + 1
            yield line, end


def _members(descriptor: int) -> Iterator[tuple[bytes, int]]:
    """Yield the text of each complete gzip member, and the position after it."""
    unpacker, text, end = zlib.decompressobj(31), list[bytes](), 0
    for piece in _pieces(descriptor):
        rest = piece
        while rest:
            try:
                text.append(unpacker.decompress(rest))
            except zlib.error:
                return
            if not unpacker.eof:
                end += len(rest)
                break
            end += len(rest) - len(unpacker.unused_data)
            rest = unpacker.unused_data
            yield b"".join(text), end
            unpacker, text = zlib.decompressobj(31), []


def _pieces(descriptor: int) -> Iterator[bytes]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, _PIECE_BYTES):
        yield piece
