"""Standard error, written from a thread, so that a reader that stops reading does not stop the work."""

import atexit
import io
import os
import select
import sys
import threading
from collections.abc import Callable

_ROOM_BYTES = 4 * 1024 * 1024  # that wait to be read; more is not kept, except that
_ROOM_FOR_TROUBLE_BYTES = 1024 * 1024  # so much more may be warnings and errors
_GATHER_SECONDS = 0.02  # lines of that time are written together: a call to the system costs more than a line
_FLUSH_SECONDS = 1.0


class Sink:
    """A bounded buffer before a stream, and the thread that empties it.

    Args:
        write: puts some of the bytes out, waiting for as long as it takes; tells how many.
    """

    def __init__(self, write: Callable[[memoryview], int]) -> None:
        self._write = write
        self._lock = threading.Lock()  # taken by itself for each line: a condition's is taken in Python
        self._changed = threading.Condition(self._lock)
        self._lines: list[bytes] = []
        self._held_bytes = 0
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._idle = True  # the thread waits to be told
        self._is_stuck = False  # the last who waited for it did so in vain
        self._told_of = 0
        self.dropped = 0
        self.on_room: Callable[[int], None] | None = None  # is told how many lines were dropped, once there is room

    def __repr__(self) -> str:
        return f"<Sink [{self._held_bytes} bytes held, {self.dropped} lines dropped]>"

    def put(self, line: bytes, *, matters: bool = True) -> None:
        """Have it written soon; never waits.

        Args:
            matters: keep it longer than what does not, while standard error is not read.
        """
        with self._lock:
            room = _ROOM_BYTES + (_ROOM_FOR_TROUBLE_BYTES if matters else 0)
            if self._held_bytes + len(line) > room:
                self.dropped += 1
                return
            self._lines.append(line)
            self._held_bytes += len(line)
            if self._idle:
                self._idle = False
                self._begin()

    def flush(self, timeout_seconds: float = _FLUSH_SECONDS) -> None:
        """Wait until all is written, but not for long, and not again for a reader who kept the last one waiting."""
        with self._changed:
            self._hurry.set()
            patience_seconds = 0.0 if self._is_stuck else timeout_seconds
            self._is_stuck = not self._changed.wait_for(lambda: self._idle, patience_seconds)

    def _begin(self) -> None:
        """Have the thread look; the lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter ends, and starts no more threads
                self._thread = None
                self._put_out(b"".join(self._take()))
                self._idle = True
        else:
            self._changed.notify_all()

    def _take(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines

    # From here on: the thread.

    def _run(self) -> None:
        while True:
            self._hurry.wait(_GATHER_SECONDS)
            with self._changed:
                lines = self._take()
            written = self._put_out(b"".join(lines))
            with self._changed:
                self._held_bytes -= sum(map(len, lines))
                if not written:
                    self.dropped += len(lines)
                lost = self.dropped - self._told_of
            if written and lost and self.on_room is not None:
                self._told_of += lost
                self.on_room(lost)
            with self._changed:
                self._is_stuck = False
                if not self._lines:
                    self._hurry.clear()
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: not self._idle)

    def _put_out(self, data: bytes) -> bool:
        """Whether it could be written: the reader may have gone, or the disk be full."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._write(rest) :]
        except (OSError, ValueError):
            return False
        return True


def _write(data: memoryview) -> int:
    """To standard error, past Python's own buffer: who has waited there could not end."""
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # it is no file, but something in its place
        sys.stderr.write(bytes(data).decode(errors="replace"))
        sys.stderr.flush()
        return len(data)
    while True:
        try:
            return os.write(number, data)
        except BlockingIOError:  # another process that shares it has set it so
            select.select((), (number,), ())


class _Stream(io.TextIOBase):
    """Standard error for those who write to streams, such as progress bars: a held terminal does not stop the work."""

    def write(self, text: str) -> int:
        put(text.encode(errors="backslashreplace"), matters=False)
        return len(text)

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()


_sink = Sink(_write)
put = _sink.put
flush = _sink.flush
stream = _Stream()
atexit.register(flush)


def dropped() -> int:
    """How many lines were not written, since they were not read or could not be written."""
    return _sink.dropped


def on_room(tell: Callable[[int], None]) -> None:
    """Have this told how many lines were dropped, each time that there is room again."""
    _sink.on_room = tell
