"""Comparing: what changes would make of a completion, folded as the engine folds them, beside what is there."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

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
    """A value that would change; null for values that are not to be shown."""

    before: str | None
    after: str | None


class Difference(msgspec.Struct, frozen=True):
    """What changes would make of a completion.

    Args:
        state: ``in_sync``; ``differs``; ``not_found``; ``refused``, where a change would give it more than sixteen
            pairs, so that it would be a dead letter; ``unreadable``, where the service does not show what is there.
        set: keys that it would get, with their values; of ``--keys-only`` null.
        changed: keys that would have another value.
        removed: keys that it would lose, with the values that they have; of ``--keys-only`` null.
        leftover: keys that a replacement leaves out, and the service keeps, where ``METASYNC_SEMANTICS`` is ``merge``.
        refused: how many of its changes are refused.
        error: of what is ``unreadable``, why.
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

    def without_values(self) -> "Difference":
        """The same, with keys alone."""
        return msgspec.structs.replace(
            self,
            set=dict.fromkeys(self.set),
            changed=dict.fromkeys(self.changed, Before(None, None)),
            removed=dict.fromkeys(self.removed),
        )


@dataclass(slots=True)
class Counts:
    """What a comparison comes to: completions, each counted once."""

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
    """What the changes would make of a completion that has this metadata now."""
    folded = fold(current, entry.changes)
    wanted, refused = folded.metadata, len(folded.too_many_keys)
    if wanted == current:
        return Difference(entry.completion_id, "refused" if refused else "in_sync", refused=refused)
    left_out = {*folded.too_many_keys, *folded.superseded}
    taken = {number: change for number, change in enumerate(entry.changes) if number not in left_out}
    update = Wanted(wanted, taken)
    wrong = set(wrong_keys(current, update))
    gone = [key for key in current if key not in wanted]
    # Of a service that merges, the engine takes as applied what leaves these.
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
    """The same, of what a read came to."""
    metadata = shown(answer)
    if metadata is not None:
        return compare(entry, metadata, semantics)
    if answer.verdict.kind is Kind.NOT_FOUND:
        return Difference(entry.completion_id, "not_found")
    return Difference(entry.completion_id, "unreadable", error=answer.verdict.error or HIDDEN)


class Comparison:
    """Compares all that is in a spool, and looks again, after the read lag, at what is not in sync.

    Args:
        semantics: what the service does to keys that an update does not name.
        read_lag_seconds: how long after an update a read may show what was there before; 0: nothing is read twice.
        now, sleep: by which that is waited for, in seconds.

    `later` counts what is to be looked at again.
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
        return f"<Comparison [{self.counts.total} compared, {self.later} to be looked at again]>"

    async def run(self, tell: Callable[[Difference], object]) -> None:
        """Tell of each completion once, when it is certain."""

        async def look(entry: Entry) -> tuple[Entry, Difference]:
            answer = await get(self._asking, self._client, entry.completion_id)
            return entry, difference_of(entry, answer, self._semantics)

        def judge(found: tuple[Entry, Difference]) -> None:
            entry, difference = found
            if self._lag_seconds and difference.state != "in_sync":
                self.later += 1
                self._spool.look_again(entry.position, self._now() + self._lag_seconds)
            else:
                self._certain(difference, tell)

        async def look_again(waiting: tuple[Entry, float]) -> Difference:
            entry, due_at = waiting
            while (seconds := due_at - self._now()) > 0:
                await self._sleep(seconds)
            return (await look(entry))[1]

        def believe(difference: Difference) -> None:
            self.later -= 1
            self._certain(difference, tell)

        await read_each(self._asking, self._spool.entries(), look, judge, _go_on)
        if self.later:
            await read_each(self._asking, self._spool.again(), look_again, believe, _go_on)

    def _certain(self, difference: Difference, tell: Callable[[Difference], object]) -> None:
        self.counts.add(difference.state)
        tell(difference)


async def _go_on() -> None:
    """Nothing is to be written meanwhile."""
