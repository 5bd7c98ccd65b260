"""Batches, as functions of a connection, called within the queue's transactions."""

from collections.abc import Collection, Mapping

import apsw
import msgspec

from worker.queue.batch import MAX_FINISHED_BATCHES, Batch, ends_by_batch
from worker.queue.pending import Settlement
from worker.queue.sqlite.clock import Moment
from worker.queue.statements import read_statements
from worker.queue.text import json_text, storable

_BATCH = read_statements(__package__, "batch")

_batches = msgspec.json.Decoder(list[Batch]).decode


def opened(connection: apsw.Connection, now: Moment, name: str) -> int:
    """Return the number of the batch with this name; create it if it does not exist."""
    number: int = connection.execute(_BATCH["open"], {"name": name, "now": now.queue}).get
    return number


def grow(connection: apsw.Connection, number: int, added: int, newest: int) -> None:
    """Count changes that were added to a batch.

    Args:
        newest: the number of the newest earlier change.
    """
    connection.execute(_BATCH["grow"], {"number": number, "added": added, "newest": newest})


def end(connection: apsw.Connection, now: Moment, settlements: Collection[Settlement]) -> None:
    """Count how the changes of each batch ended."""
    ends = [(name, *counts) for name, counts in ends_by_batch(settlements).items()]
    if ends:
        connection.execute(_BATCH["end"], {"ends": json_text(ends), "now": now.queue})


def open_again(connection: apsw.Connection, letters: Mapping[str, object]) -> None:
    """Recreate forgotten batches of letters that become pending again."""
    connection.execute(_BATCH["open_again"], letters)


def revive(connection: apsw.Connection, letters: Mapping[str, object]) -> None:
    """Count those letters as pending again."""
    connection.execute(_BATCH["revive"], letters)


def read(connection: apsw.Connection, now: Moment, name: str | None) -> list[Batch]:
    """Return all batches, or the one with this name."""
    return _batches(connection.execute(_BATCH["read"], {"name": storable(name), "ahead": now.ahead}).get)


def forget(connection: apsw.Connection, now: Moment, older_than_seconds: float, most: int) -> int:
    """Delete finished batches; return how many."""
    terms = {"since": now.queue - older_than_seconds, "kept": MAX_FINISHED_BATCHES, "most": most}
    connection.execute(_BATCH["forget"], terms)
    return connection.changes()
