"""What is pending, gone through page by page while it changes: to be read, or taken back."""

from dataclasses import dataclass, field

from worker.queue.batch import PendingSelection, Withdrawn
from worker.queue.pending import QueuedChange
from worker.queue.redis import codec
from worker.queue.redis.server import Server
from worker.queue.text import storable


@dataclass(slots=True)
class Walk:
    """How far the walk has come.

    Args:
        cursor: of the server's own walk; None at its end.
        wanted: completions whose changes are to be looked at next, and the number that those are above.
        met: the hashes of those that must not be met again: the server may name one twice.
    """

    cursor: bytes | None = b"0"
    wanted: list[tuple[str, int]] = field(default_factory=list)
    met: set[int] = field(default_factory=set)

    @property
    def rest(self) -> "Walk | None":
        """Where to go on; None where all was looked at."""
        return None if self.cursor is None and not self.wanted else self

    def found(self, cursor: bytes, completion_ids: list[bytes]) -> None:
        """The server's walk has come further."""
        self.cursor = None if cursor == b"0" else cursor
        for completion_id in (each.decode() for each in completion_ids):
            if hash(completion_id) not in self.met:
                self.wanted.append((completion_id, 0))


async def read(
    server: Server, selection: PendingSelection, walk: Walk | None
) -> tuple[list[QueuedChange], Walk | None]:
    """Give the selected changes of a piece, and the rest of the walk."""
    walk = await _next(server, selection, walk)
    wanted = walk.wanted
    walk.wanted, pages = codec.read_page(await server.call("pending", *_terms(selection, walk)))
    changes: list[QueuedChange] = []
    for (completion_id, _), page in zip(wanted, pages, strict=False):  # as far as the piece went
        walk.met.add(hash(completion_id))
        changes += codec.changes_of(completion_id, page)
    return changes, None if selection.change_id else walk.rest


async def withdraw(server: Server, selection: PendingSelection, walk: Walk | None) -> tuple[Withdrawn, Walk | None]:
    """Take back the selected changes of a piece; give the rest of the walk, too."""
    walk = await _next(server, selection, walk)
    answer = await server.call("withdraw", *_terms(selection, walk))
    walk.wanted, withdrawn, in_flight = codec.read_withdrawn(answer)
    walk.met.update([hash(completion_id) for completion_id, _ in in_flight])  # counted twice is wrong, looked at is not
    counts = Withdrawn(withdrawn, sum([changes for _, changes in in_flight]))
    return counts, None if selection.change_id else walk.rest


def is_findable(text: str) -> bool:
    """Whether a store can have it at all."""
    return text != "" and storable(text) == text


async def _next(server: Server, selection: PendingSelection, walk: Walk | None) -> Walk:
    """Find out which completions to look at next; the one of a change_id is in the first piece."""
    if walk is None:
        walk = await _first(server, selection)
    if not walk.wanted and walk.cursor is not None:
        walk.found(*await server.call("pending_ids", walk.cursor))
    return walk


async def _first(server: Server, selection: PendingSelection) -> Walk:
    conditions = selection.completion_id, selection.change_id, selection.batch
    if not all(is_findable(each) for each in conditions if each is not None):
        return Walk(cursor=None)
    if selection.change_id is not None:
        found = await server.call("pending_of", selection.change_id)
        wanted = [(found[1].decode(), found[0] - 1)] if found else []
        return Walk(None, [each for each in wanted if selection.completion_id in (None, each[0])])
    if selection.completion_id is not None:
        return Walk(None, [(selection.completion_id, 0)])
    return Walk()


def _terms(selection: PendingSelection, walk: Walk) -> tuple[bytes, str, str]:
    return codec.pack(walk.wanted), storable(selection.change_id or ""), storable(selection.batch or "")
