"""The log of maps that the service confirmed last: merges build on them, because reads of the service may lag.

A store appends one row for everything that a call of `settle` confirms: one row per completion would cost as much as
the settlement. A queue object reads new rows to learn which row has a completion's latest map. The maps stay in the
store, so that all workers find them, after a restart, too.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Self

import msgspec

from worker.queue.pending import Claim, Settlement
from worker.queue.text import json_text

MAX_UPDATES = 200_000  # kept in the log, and indexed by each queue object in about 20 MB
BYTES_AT_ONCE = 2_000_000  # of rows to read, as all that a claim wants may be gigabytes

_maps = msgspec.json.Decoder(list[msgspec.Raw]).decode
_map = msgspec.json.Decoder(dict[str, str]).decode


class LogRow(msgspec.Struct, frozen=True, array_like=True):
    """The maps that one call of `settle` confirmed, without their content.

    Args:
        number: increases with each row; a store may fill gaps later.
        written_at: Unix time, seconds, by the store's clock.
        completion_ids: of the maps, in their order; empty if the row is too old to be used.
    """

    number: int
    written_at: float
    completion_ids: list[str]


class LogIndex:
    """The row of a store's log with each completion's latest map.

    Args:
        seconds: the maximum age of a known row.
    """

    __slots__ = ("_row_of", "_rows", "_updates", "last", "seconds")

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.last = 0  # the number of the newest known row
        self._rows: dict[int, tuple[float, list[int]]] = {}  # by number: time and hashes, in the order of learning
        self._row_of: dict[int, int] = {}  # by a completion's hash: number of the row, which has the id itself
        self._updates = 0

    def __repr__(self) -> str:
        return f"<LogIndex [{self._updates} updates up to {self.last}]>"

    def covering(self, seconds: float) -> Self:
        """Return this index; if it covers too short a time, an empty one that has yet to read the log."""
        return self if seconds <= self.seconds else type(self)(seconds)

    def find(self, completion_ids: Collection[str], news: Iterable[LogRow], *, since: float) -> dict[int, list[str]]:
        """Return which completions to look for in which rows, without changing the index.

        Args:
            news: rows to learn once the transaction that read them has succeeded.
            since: Unix time in seconds; older rows are ignored.
        """
        rows: dict[str, int] = {}
        for row in news:
            if row.written_at > since:
                for completion_id in row.completion_ids:
                    if completion_id in completion_ids:
                        rows[completion_id] = max(row.number, rows.get(completion_id, 0))
        found: dict[int, list[str]] = {}
        for completion_id in completion_ids:
            known = self._row_of.get(hash(completion_id), 0)
            if known and self._rows.get(known, (since, []))[0] <= since:
                known = 0
            if number := max(known, rows.get(completion_id, 0)):
                found.setdefault(number, []).append(completion_id)
        return found

    def learn(self, news: Iterable[LogRow], *, now: float) -> None:
        """Add these rows; drop rows that are too old or too many."""
        since = now - self.seconds
        for row in news:
            self.last = max(self.last, row.number)
            if row.number in self._rows or not row.completion_ids:
                continue
            hashes = [hash(completion_id) for completion_id in row.completion_ids]
            for each in hashes:
                if self._row_of.get(each, 0) < row.number:
                    self._row_of[each] = row.number
            self._rows[row.number] = row.written_at, hashes
            self._updates += len(hashes)
        while self._rows:
            number, (written_at, hashes) = next(iter(self._rows.items()))
            if written_at > since and self._updates <= MAX_UPDATES:
                break
            self._forget(number, hashes)

    def _forget(self, number: int, hashes: list[int]) -> None:
        del self._rows[number]
        self._updates -= len(hashes)
        for each in hashes:
            if self._row_of.get(each) == number:
                del self._row_of[each]


def confirmed_by(settlements: Iterable[Settlement]) -> dict[str, Mapping[str, str]]:
    """Return the confirmed maps of the settlements, by completion."""
    return {each.claim.completion_id: each.confirmed for each in settlements if each.confirmed is not None}


def texts_of(maps: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    """Return the completion ids and the maps of a row, each as one JSON array."""
    return json_text(list(maps)), json_text(list(maps.values()))


def merged_first(claims: Iterable[Claim]) -> set[str]:
    """Return the completions whose first change is a merge, which needs the current metadata."""
    return {claim.completion_id for claim in claims if claim.changes[0].mode == "merge"}


def after(read: Collection[int], numbers: Iterable[int]) -> list[int]:
    """Return which of these rows are still to be read, if the first ones were: none if those left have gone."""
    if not read:
        return []
    last = max(read)
    return [number for number in numbers if number > last]


def maps_in(completion_ids: Sequence[str], maps: bytes | str, wanted: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the wanted maps of a row, as far as it has them.

    Args:
        completion_ids: the row's.
        maps: the row's, as a JSON array.
    """
    by_completion = dict(zip(completion_ids, _maps(maps), strict=True))
    return {each: _map(by_completion[each]) for each in wanted if each in by_completion}


def with_confirmed(claims: Iterable[Claim], maps: Mapping[str, dict[str, str]]) -> list[Claim]:
    """Return the claims with the metadata that the service confirmed last, if it is known."""
    return [
        msgspec.structs.replace(claim, confirmed=maps[claim.completion_id]) if claim.completion_id in maps else claim
        for claim in claims
    ]
