"""Batches in the form that commands show, and the search for a batch by name."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self

from worker.cli.output import tell, time_text
from worker.queue import Batch, Batches
from worker.queue.text import storable
from worker.terminal import printable

NO_SUCH_BATCH = "there is no such batch"

_MOST_NEAR = 3
_ENDS = ("applied", "unchanged", "superseded", "dead", "withdrawn")


@dataclass(frozen=True, slots=True)
class BatchState:
    """The results of a batch's changes. Times are in UTC, in RFC 3339's form.

    Args:
        created_at: when its first changes came.
        last_put_at: when its last changes came.
        last_done_at: when the last change that is done was done; null before the first.
        changes: how many came; each is pending, or one of the five that follow.
        superseded: not sent, since a change with a newer as_of was applied.
        dead: dead letters, with those that were purged since.
        per_second: how many were done a second, from the first to the last; null if that is not known.
        seconds_left: how long the rest takes at that rate; null if that is not known.
    """

    name: str
    created_at: str
    last_put_at: str
    last_done_at: str | None
    changes: int
    pending: int
    applied: int
    unchanged: int
    superseded: int
    dead: int
    withdrawn: int
    per_second: float | None
    seconds_left: float | None

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Convert the store's form."""
        per_second, left = batch.rate_per_second, batch.seconds_left
        return cls(
            name=batch.name,
            created_at=time_text(batch.created_at),
            last_put_at=time_text(batch.last_put_at),
            last_done_at=None if batch.last_done_at is None else time_text(batch.last_done_at),
            changes=batch.changes,
            pending=batch.pending,
            applied=batch.applied,
            unchanged=batch.unchanged,
            superseded=batch.superseded,
            dead=batch.dead,
            withdrawn=batch.withdrawn,
            per_second=None if per_second is None else round(per_second, 3),
            seconds_left=None if left is None else round(left, 1),
        )

    @property
    def counts_text(self) -> str:
        """Its results, for people. Results with 0 are left out, except applied."""
        ends = [(name, getattr(self, name)) for name in _ENDS]
        words = [f"{count:,} {name}" for name, count in ends if count or name == "applied"]
        return ", ".join([*words, *([f"{self.pending:,} pending"] if self.pending else [])])


def quoted(name: str) -> str:
    """The name, quoted for a shell, on one line: another client may have sent any text."""
    return printable(shlex.quote(name))


async def find(queue: Batches, name: str) -> Batch | None:
    """The batch of this name. Without one, an error says so, with similar names."""
    wanted = storable(name)
    if found := await queue.batches(wanted):
        return found[0]
    names = [batch.name for batch in await queue.batches()]
    near = nearest(wanted, names)
    hint = f"; did you mean {' or '.join(map(printable, near))}?" if near else "; `metasync batch list` shows them"
    tell(f"metasync: there is no batch {printable(name)}{hint if names else ''}")
    return None


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Similar names, the likeliest first: those with this beginning, then those with a similar spelling.

    Args:
        names: the newest first.
    """
    starts: dict[str, str] = {}  # the text may be the beginning of a generated name, which ends with a time
    beginning: list[str] = []
    for each in names:
        starts.setdefault(each[: len(name) + 1], each)
        if each.startswith(name):
            beginning.append(each)
    near = [starts[start] for start in get_close_matches(name, list(starts), n=_MOST_NEAR)]
    return list(dict.fromkeys([*beginning, *near]))[:_MOST_NEAR]
