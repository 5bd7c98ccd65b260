"""Go through pending changes page by page while they change, to read or withdraw them."""

from dataclasses import dataclass, field

from worker.queue.batch import PendingSelection, Withdrawn
from worker.queue.pending import QueuedChange
from worker.queue.redis import codec
from worker.queue.redis.server import Server
from worker.queue.text import storable


@dataclass(slots=True)
class Walk:
    """The position of the walk.

    Args:
        cursor: the server's scan cursor; None at the end.
        wanted: the completions to examine next, each with the last number examined.
        met: hashes of completions that must not be visited again, since a scan may return one twice.
    """

    cursor: bytes | None = b"0"
    wanted: list[tuple[str, int]] = field(default_factory=list)
    met: set[int] = field(default_factory=set)

    @property
    def rest(self) -> "Walk | None":
        """The rest of the walk; None if all was examined."""
        return None if self.cursor is None and not self.wanted else self

    def found(self, cursor: bytes, completion_ids: list[bytes]) -> None:
        """Add a result of the server's scan."""
        self.cursor = None if cursor == b"0" else cursor
        for completion_id in (each.decode() for each in completion_ids):
            if hash(completion_id) not in self.met:
                self.wanted.append((completion_id, 0))


async def read(
    server: Server, selection: PendingSelection, walk: Walk | None
) -> tuple[list[QueuedChange], Walk | None]:
    """Return the selected changes of one piece, and the rest of the walk."""
    walk = await _next(server, selection, walk)
    wanted = walk.wanted
    walk.wanted, pages = codec.read_page(await server.call("pending", *_terms(selection, walk)))
    changes: list[QueuedChange] = []
    for (completion_id, _), page in zip(wanted, pages, strict=False):  # the piece may be shorter
        walk.met.add(hash(completion_id))
        changes += codec.changes_of(completion_id, page)
    return changes, None if selection.change_id else walk.rest


async def withdraw(server: Server, selection: PendingSelection, walk: Walk | None) -> tuple[Withdrawn, Walk | None]:
    """Withdraw the selected changes of one piece; also return the rest of the walk."""
    walk = await _next(server, selection, walk)
    answer = await server.call("withdraw", *_terms(selection, walk))
    walk.wanted, withdrawn, in_flight = codec.read_withdrawn(answer)
    walk.met.update([hash(completion_id) for completion_id, _ in in_flight])  # never count one twice
    counts = Withdrawn(withdrawn, sum([changes for _, changes in in_flight]))
    return counts, None if selection.change_id else walk.rest


def is_findable(text: str) -> bool:
    """Whether the text can exist in a store."""
    return text != "" and storable(text) == text


async def _next(server: Server, selection: PendingSelection, walk: Walk | None) -> Walk:
    """Find the completions to examine next; a selection by change_id needs only the first piece."""
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
