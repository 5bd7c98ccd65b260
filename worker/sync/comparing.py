"""Compare completions with what changes would make of them, folded as the engine folds them."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from worker.api import Answer, Kind
from worker.changes.fold import fold
from worker.engine.blame import Semantics
from worker.engine.showing import HIDDEN, Wanted, wrong_keys
from worker.sync.asking import Asking
from worker.sync.reading import Gets, get, read_each, shown
from worker.sync.spool import Entry, Spool

State = Literal["in_sync", "differs", "not_found", "refused", "unreadable"]

_TOO_MANY_KEYS = "more than 16 pairs"


class Before(msgspec.Struct, frozen=True):
    """A value before and after; both null if values are not to be shown."""

    before: str | None
    after: str | None


class Difference(msgspec.Struct, frozen=True):
    """How changes would alter a completion.

    Args:
        state: ``in_sync``; ``differs``; ``not_found``; ``refused``: a change would exceed sixteen pairs and become a
            dead letter; ``unreadable``: the service does not show the metadata.
        set: keys that it would get, with their values (null with ``--keys-only``).
        changed: keys whose value would change.
        removed: keys that it would lose, with their current values (null with ``--keys-only``).
        leftover: keys that a replacement omits but the service keeps, if ``METASYNC_SEMANTICS`` is ``merge``.
        refused: how many of its changes would be refused.
        error: why it is ``unreadable``.
    """

    completion_id: str
    state: State
    set: dict[str, str | None] = msgspec.field(default_factory=dict)
    changed: dict[str, Before] = msgspec.field(default_factory=dict)
    removed: dict[str, str | None] = msgspec.field(default_factory=dict)
    leftover: list[str] = msgspec.field(default_factory=list)
    refused: int = 0
    error: str | None = None

    def __repr__(self) -> str:
        return f"<Difference {self.completion_id} [{self.state}]>"

    @property
    def size(self) -> int:
        """The bytes that its values hold."""
        changed = [value for each in self.changed.values() for value in (each.before, each.after)]
        return sum(map(sys.getsizeof, (*self.set.values(), *changed, *self.removed.values())))

    def without_values(self) -> "Difference":
        """Return a copy with keys only."""
        return msgspec.structs.replace(
            self,
            set=dict.fromkeys(self.set),
            changed=dict.fromkeys(self.changed, Before(None, None)),
            removed=dict.fromkeys(self.removed),
        )


@dataclass(slots=True)
class Counts:
    """The result of a comparison: completions by state, each counted once."""

    differs: int = 0
    in_sync: int = 0
    not_found: int = 0
    refused: int = 0
    unreadable: int = 0

    def add(self, state: State) -> None:
        setattr(self, state, getattr(self, state) + 1)

    @property
    def total(self) -> int:
        return self.differs + self.in_sync + self.not_found + self.refused + self.unreadable


def compare(entry: Entry, current: Mapping[str, str], semantics: Semantics) -> Difference:
    """Compare a completion's current metadata with the result of its changes."""
    folded = fold(current, entry.changes)
    wanted, refused = folded.metadata, len(folded.too_many_keys)
    if wanted == current:
        return Difference(entry.completion_id, "refused" if refused else "in_sync", refused=refused)
    left_out = {*folded.too_many_keys, *folded.superseded}
    taken = {number: change for number, change in enumerate(entry.changes) if number not in left_out}
    update = Wanted(wanted, taken)
    wrong = set(wrong_keys(current, update))
    gone = [key for key in current if key not in wanted]
    # If the service merges, the engine counts an update as applied although these keys stay.
    leftover = [key for key in gone if key not in wrong] if semantics == "merge" and update.replaces else []
    difference = Difference(
        entry.completion_id,
        "differs",
        set={key: value for key, value in wanted.items() if key not in current},
        changed={key: Before(current[key], value) for key, value in wanted.items() if current.get(key, value) != value},
        removed={key: current[key] for key in gone if key not in leftover},
        leftover=leftover,
        refused=refused,
    )
    if refused:
        return msgspec.structs.replace(difference, state="refused")
    if not (difference.set or difference.changed or difference.removed):
        return msgspec.structs.replace(difference, state="in_sync")
    return difference


def difference_of(entry: Entry, answer: Answer, semantics: Semantics) -> Difference:
    """Compare the answer of a read with the result of the completion's changes."""
    metadata = shown(answer)
    if metadata is not None:
        return compare(entry, metadata, semantics)
    if answer.verdict.kind is Kind.NOT_FOUND:
        return Difference(entry.completion_id, "not_found")
    return Difference(entry.completion_id, "unreadable", error=answer.verdict.error or HIDDEN)


class _Seen(NamedTuple):
    """The result of a first read, without the changes: many may wait until a slow one is reported.

    Args:
        position: of its entry.
    """

    position: int
    difference: Difference


class Comparison:
    """Compares every completion of a spool; reads those not in sync again after the read lag.

    Args:
        semantics: what the service does with keys that an update omits.
        read_lag_seconds: how long after an update a read may show the old state; 0 to read nothing twice.
        now, sleep: the clock and the wait for that, in seconds.

    `later` counts completions to read again.
    """

    def __init__(
        self,
        asking: Asking,
        client: Gets,
        spool: Spool,
        *,
        semantics: Semantics,
        read_lag_seconds: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.counts = Counts()
        self.later = 0
        self._asking = asking
        self._client = client
        self._spool = spool
        self._semantics = semantics
        self._lag_seconds = read_lag_seconds
        self._now = now
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Comparison [{self.counts.total} compared, {self.later} to read again]>"

    async def run(self, tell: Callable[[Difference], object]) -> None:
        """Report each completion once, when its state is certain."""

        async def look(entry: Entry) -> _Seen:
            answer = await get(self._asking, self._client, entry.completion_id)
            return _Seen(entry.position, difference_of(entry, answer, self._semantics))

        def judge(seen: _Seen) -> None:
            position, difference = seen
            if self._lag_seconds and difference.state != "in_sync":
                self.later += 1
                self._spool.look_again(position, self._now() + self._lag_seconds)
            else:
                self._certain(difference, tell)

        async def look_again(waiting: tuple[Entry, float]) -> Difference:
            entry, due_at = waiting
            while (seconds := due_at - self._now()) > 0:
                await self._sleep(seconds)
            return (await look(entry)).difference

        def believe(difference: Difference) -> None:
            self.later -= 1
            self._certain(difference, tell)

        await read_each(
            self._asking, self._spool.entries(), look, judge, _go_on, size_of=lambda seen: seen.difference.size
        )
        if self.later:
            await read_each(
                self._asking, self._spool.again(), look_again, believe, _go_on, size_of=lambda each: each.size
            )

    def _certain(self, difference: Difference, tell: Callable[[Difference], object]) -> None:
        self.counts.add(difference.state)
        tell(difference)


async def _go_on() -> None:
    """There is nothing to write in between."""
