"""Write standard error from a thread, so that a stuck reader does not stop the work."""

import atexit
import io
import os
import select
import sys
import threading
from collections.abc import Callable

_ROOM_BYTES = 4 * 1024 * 1024  # of lines that wait to be written; further ones are dropped
_ROOM_FOR_TROUBLE_BYTES = 1024 * 1024  # additional room for warnings and errors
_GATHER_SECONDS = 0.02  # lines of this time are written together: a system call costs more than a line
_FLUSH_SECONDS = 1.0


class Sink:
    """A bounded buffer before a stream, and a thread that writes it.

    Args:
        write: writes some of the bytes, however long it takes, and returns how many.
    """

    def __init__(self, write: Callable[[memoryview], int]) -> None:
        self._write = write
        self._lock = threading.Lock()  # taken by itself for each line: a condition's is taken in Python
        self._changed = threading.Condition(self._lock)
        self._lines: list[bytes] = []
        self._held_bytes = 0
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._idle = True  # the thread waits for work
        self._is_stuck = False  # the last flush timed out
        self._is_cut = False  # of the last line that was written, the end is missing
        self._told_of = 0
        self.dropped = 0
        self.on_room: Callable[[int], None] | None = None  # called with the number of dropped lines, once there is room

    def __repr__(self) -> str:
        return f"<Sink [{self._held_bytes} bytes held, {self.dropped} lines dropped]>"

    def put(self, line: bytes, *, matters: bool = True) -> None:
        """Queue a line for writing; never waits.

        Args:
            matters: whether to keep it longer than other lines while standard error is stuck.
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
        """Wait briefly until all is written; do not wait at all if the last flush timed out."""
        with self._changed:
            self._hurry.set()
            patience_seconds = 0.0 if self._is_stuck else timeout_seconds
            self._is_stuck = not self._changed.wait_for(lambda: self._idle, patience_seconds)

    def _begin(self) -> None:
        """Wake the thread; the caller holds the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._thread = None
                self._put_out(b"".join(self._take()))
                self._idle = True
        else:
            self._changed.notify_all()

    def _take(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines

    # The methods below run in the thread.

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
        """Write the data; False if the reader is gone or the disk is full."""
        if self._is_cut:
            data = b"\n" + data
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._write(rest) :]
        except (OSError, ValueError):
            if len(rest) < len(data):
                self._is_cut = not data.endswith(b"\n", 0, len(data) - len(rest))
            return False
        self._is_cut = False
        return True


def _write(data: memoryview) -> int:
    """Write to standard error without Python's buffer, whose flush could block the exit."""
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # sys.stderr was replaced by something without a descriptor
        sys.stderr.write(bytes(data).decode(errors="replace"))
        sys.stderr.flush()
        return len(data)
    while True:
        try:
            return os.write(number, data)
        except BlockingIOError:  # another process that shares it has made it non-blocking
            select.select((), (number,), ())


class _Stream(io.TextIOBase):
    """Standard error as a stream, for progress bars: a stuck terminal does not stop the work."""

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
    """Return the number of lines that were dropped or could not be written."""
    return _sink.dropped


def on_room(tell: Callable[[int], None]) -> None:
    """Call this with the number of dropped lines, each time there is room again."""
    _sink.on_room = tell
