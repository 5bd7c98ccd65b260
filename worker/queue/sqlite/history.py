"""What the queue remembers of its last day, as functions of a connection."""

from dataclasses import asdict

import apsw
import msgspec

from worker.queue.history import HistoryMinute, Sample, every_minute
from worker.queue.sqlite.statements import statements

_HISTORY = statements("history")
_STATUS = statements("status")

_done = msgspec.json.Decoder(list[tuple[int, int, int, int]]).decode
_samples = msgspec.json.Decoder(list[tuple[int, Sample]]).decode
_counts = msgspec.json.Decoder(dict[str, int]).decode


def record(connection: apsw.Connection, sample: Sample, *, now: float) -> None:
    """Keep the sample as this minute's last."""
    connection.execute(_HISTORY["record"], {"minute": int(now // 60)} | asdict(sample))


def read(connection: apsw.Connection, minutes: int, *, now: float) -> list[HistoryMinute]:
    """Give the last minutes, oldest first."""
    newest = int(now // 60)
    since = {"since": newest - minutes + 1}
    done = _done(connection.execute(_HISTORY["done"], since).get)
    return every_minute(newest, minutes, done, _samples(connection.execute(_HISTORY["samples"], since).get))


def dead_reasons(connection: apsw.Connection) -> dict[str, int]:
    """Count the dead letters by reason."""
    return _counts(connection.execute(_STATUS["dead_reasons"]).get)
