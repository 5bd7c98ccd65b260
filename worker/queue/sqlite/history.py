"""The history of the last day, as functions of a connection."""

import apsw
import msgspec

from worker.queue.history import HistoryMinute, Sample, every_minute
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements

_HISTORY = read_statements(__package__, "history")

_done = msgspec.json.Decoder(list[tuple[int, int, int, int, int, int]]).decode
_samples = msgspec.json.Decoder(list[tuple[int, Sample]]).decode


def record(connection: apsw.Connection, now: Moment, sample: Sample) -> None:
    """Store the sample as this minute's last."""
    connection.execute(_HISTORY["record"], {"minute": int(now.unix // 60)} | msgspec.structs.asdict(sample))


def read(connection: apsw.Connection, now: Moment, minutes: int) -> list[HistoryMinute]:
    """Return the last minutes, oldest first."""
    newest = int(now.unix // 60)
    since = {"since": newest - minutes + 1}
    done = _done(connection.execute(_HISTORY["done"], since).get)
    return every_minute(newest, minutes, done, _samples(connection.execute(_HISTORY["samples"], since).get))
