"""Encode the Lua functions' arguments and decode their results: MessagePack and JSON, times in microseconds."""

from collections.abc import Sequence

import msgspec

from worker.changes import MetadataChange
from worker.queue.base import Stretch
from worker.queue.batch import Batch, ends_by_batch
from worker.queue.history import Sample
from worker.queue.letters import LONGEST_AGO_SECONDS, DeadLetter
from worker.queue.pending import QueuedChange, Settlement
from worker.queue.rows import age_seconds
from worker.queue.text import json_text, storable

PAGE = 250  # dead letters to read, retry or purge at once
US_PER_SECOND = 1_000_000


class _Change(msgspec.Struct, frozen=True, array_like=True):
    """A change as the Lua library stores it; times are in microseconds. None is "" in `change_id`, else False.

    Args:
        as_of: in seconds.
    """

    number: int
    enqueued_at: int
    change_id: str
    mode: str
    metadata: str
    trials: str | bool = False
    as_of: float | bool = False
    batch: str | bool = False
    is_urgent: bool = False


_Letter = tuple[int, int, str, str, _Change, str]
_Batch = tuple[int, int, int, int, int, int, int, int, int, int]

pack = msgspec.msgpack.Encoder(enc_hook=str.__str__).encode  # encodes subclasses of str
read_claimed = msgspec.msgpack.Decoder(
    tuple[int, int, list[tuple[str, list[_Change]]], list[tuple[int, list[str]]]]
).decode
read_letters = msgspec.msgpack.Decoder(tuple[int, int, list[_Letter]]).decode
read_revived = msgspec.msgpack.Decoder(tuple[int, int, tuple[int, int, list[int]]]).decode
read_purged = msgspec.msgpack.Decoder(tuple[int, int, int]).decode
read_page = msgspec.msgpack.Decoder(tuple[list[tuple[str, int]], list[list[_Change]]]).decode
read_withdrawn = msgspec.msgpack.Decoder(tuple[list[tuple[str, int]], int, list[tuple[str, int]]]).decode
read_batches = msgspec.msgpack.Decoder(list[tuple[int, str, _Batch]]).decode
read_newest = msgspec.msgpack.Decoder(list[tuple[str, float]]).decode
read_holders = msgspec.msgpack.Decoder(tuple[int, list[tuple[str, int, int, int, int]]]).decode
read_note = msgspec.msgpack.Decoder(tuple[str, int]).decode
read_minutes = msgspec.msgpack.Decoder(tuple[int, list[tuple[int, int, int, int, int, str]]]).decode
read_positions = msgspec.msgpack.Decoder(set[int]).decode
read_maps = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode
read_map = msgspec.json.Decoder(dict[str, str]).decode
read_sample = msgspec.json.Decoder(Sample).decode
_fate = msgspec.json.Decoder(tuple[int, int | None, str | None, str | None]).decode


def pack_changes(changes: Sequence[MetadataChange]) -> bytes:
    """Encode changes for the functions."""
    return pack(
        [
            (each.completion_id, each.change_id or "", each.mode, json_text(each.metadata))
            if each.as_of is None
            else (each.completion_id, each.change_id or "", each.mode, json_text(each.metadata), float(each.as_of))
            for each in changes
        ]
    )


def pack_selection(stretch: Stretch) -> bytes:
    """Encode the stretch in the order that the functions expect."""
    selection, numbers = stretch.selection, None
    if selection.numbers is not None:
        numbers = sorted({number for number in selection.numbers if stretch.after < number <= stretch.until})[:PAGE]
    conditions = storable(selection.completion_id), storable(selection.reason)
    ages = map(microseconds, selection.ages or (-LONGEST_AGO_SECONDS, LONGEST_AGO_SECONDS))
    terms = stretch.after, stretch.until, stretch.limit(PAGE), numbers, *conditions, *ages, storable(selection.batch)
    return pack(terms)


def told(settlement: Settlement) -> tuple[object, ...]:
    """Encode the settlement in the order that the function expects."""
    settlement.check()  # raises before anything is changed
    deaths = []
    for death in settlement.dead:
        number, reason, *fate = death.row()
        deaths.append((number, reason, json_text(fate)))
    return (
        settlement.claim.completion_id,
        settlement.claim.lease,
        len(settlement.claim.changes),
        list(settlement.done()),
        deaths,
        microseconds(settlement.delay_seconds),
        [part for noted in settlement.trial_rows() for part in noted],
        len(settlement.applied),
        len(settlement.unchanged),
        "" if settlement.confirmed is None else json_text(dict(settlement.confirmed)),
        list(settlement.superseded),
        *_ends(settlement),
    )


def _ends(settlement: Settlement) -> list[list[object]]:
    """Encode the outcomes of changes in batches; most settlements have none."""
    if not [change for change in settlement.claim.changes if change.batch is not None]:
        return []
    return [[part for name, counts in ends_by_batch((settlement,)).items() for part in (name, *counts)]]


def _text(stored: object) -> str | None:
    return stored if isinstance(stored, str) else None


def changes_of(completion_id: str, changes: Sequence[_Change]) -> tuple[QueuedChange, ...]:
    return tuple(
        QueuedChange(
            change.number,
            completion_id,
            change.change_id or None,
            change.mode,
            change.metadata,
            change.enqueued_at / US_PER_SECOND,
            _text(change.trials) if change.trials else None,
            None if change.as_of is False else change.as_of,
            _text(change.batch) if change.batch else None,
        )
        for change in changes
    )


def letter_of(letter: _Letter) -> DeadLetter:
    number, died_at, completion_id, reason, change, fate = letter
    attempts, status, error, request_id = _fate(fate)
    return DeadLetter(
        number,
        completion_id,
        change.change_id or None,
        change.mode,
        change.metadata,
        change.enqueued_at / US_PER_SECOND,
        reason,
        status,
        error,
        request_id,
        attempts,
        died_at / US_PER_SECOND,
        None if change.as_of is False else change.as_of,
        _text(change.batch),
    )


def batch_of(name: str, told: _Batch) -> Batch:
    created_at, changes, applied, unchanged, superseded, dead, withdrawn, *times = told
    last_put_at, first_done_at, last_done_at = (time / US_PER_SECOND for time in times)
    return Batch(
        name,
        created_at / US_PER_SECOND,
        changes,
        applied,
        unchanged,
        superseded,
        dead,
        withdrawn,
        first_done_at or None,
        last_done_at or None,
        last_put_at,
    )


def age_of(now: int, then: int) -> float:
    return age_seconds(now, then) / US_PER_SECOND


def microseconds(seconds: float) -> int:
    """Convert to microseconds, the unit of the library's times."""
    return round(seconds * US_PER_SECOND)
