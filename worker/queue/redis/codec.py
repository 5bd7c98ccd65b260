"""What the library's functions are told, and what they give: MessagePack and JSON, times in microseconds."""

from collections.abc import Sequence

import msgspec

from worker.changes import MetadataChange
from worker.queue.base import Stretch
from worker.queue.history import Sample
from worker.queue.letters import LONGEST_AGO_SECONDS, DeadLetter
from worker.queue.pending import QueuedChange, Settlement
from worker.queue.rows import age_seconds
from worker.queue.text import json_text, storable

PAGE = 250  # dead letters that are read, retried or purged at once
US_PER_SECOND = 1_000_000


class _Change(msgspec.Struct, frozen=True, array_like=True):
    """A change as the library stores it: `change_id` is empty for none, the time is in microseconds."""

    number: int
    enqueued_at: int
    change_id: str
    mode: str
    metadata: str
    trials: str | None = None


_Letter = tuple[int, int, str, str, _Change, str]

pack = msgspec.msgpack.Encoder(enc_hook=str.__str__).encode  # a string of a subclass is a string
read_claimed = msgspec.msgpack.Decoder(
    tuple[int, int, list[tuple[str, list[_Change]]], list[tuple[int, list[str]]]]
).decode
read_letters = msgspec.msgpack.Decoder(tuple[int, int, list[_Letter]]).decode
read_revived = msgspec.msgpack.Decoder(tuple[int, int, tuple[int, int]]).decode
read_purged = msgspec.msgpack.Decoder(tuple[int, int, int]).decode
read_pages = msgspec.msgpack.Decoder(list[list[_Change]]).decode
read_holders = msgspec.msgpack.Decoder(tuple[int, list[tuple[str, int, int, int, int]]]).decode
read_note = msgspec.msgpack.Decoder(tuple[str, int]).decode
read_minutes = msgspec.msgpack.Decoder(tuple[int, list[tuple[int, int, int, str]]]).decode
read_positions = msgspec.msgpack.Decoder(set[int]).decode
read_maps = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode
read_map = msgspec.json.Decoder(dict[str, str]).decode
read_sample = msgspec.json.Decoder(Sample).decode
_fate = msgspec.json.Decoder(tuple[int, int | None, str | None, str | None]).decode


def pack_changes(changes: Sequence[MetadataChange]) -> bytes:
    """The changes as the functions read them."""
    return pack([(each.completion_id, each.change_id or "", each.mode, json_text(each.metadata)) for each in changes])


def pack_selection(stretch: Stretch) -> bytes:
    """Say it in the order in which the functions read it."""
    selection, numbers = stretch.selection, None
    if selection.numbers is not None:
        numbers = sorted({number for number in selection.numbers if stretch.after < number <= stretch.until})[:PAGE]
    conditions = storable(selection.completion_id), storable(selection.reason)
    ages = map(microseconds, selection.ages or (-LONGEST_AGO_SECONDS, LONGEST_AGO_SECONDS))
    return pack([stretch.after, stretch.until, stretch.limit(PAGE), numbers, *conditions, *ages])


def told(settlement: Settlement) -> tuple[object, ...]:
    """Say it in the order in which the function reads it."""
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
    )


def changes_of(completion_id: str, changes: Sequence[_Change]) -> tuple[QueuedChange, ...]:
    return tuple(
        QueuedChange(
            change.number,
            completion_id,
            change.change_id or None,
            change.mode,
            change.metadata,
            change.enqueued_at / US_PER_SECOND,
            change.trials,
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
    )


def age_of(now: int, then: int) -> float:
    return age_seconds(now, then) / US_PER_SECOND


def microseconds(seconds: float) -> int:
    """Microseconds, the unit of the library's times."""
    return round(seconds * US_PER_SECOND)
