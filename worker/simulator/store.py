"""The stored completions: created, found, changed, listed and deleted, in memory."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain

from worker.simulator.answers import RequestError, not_found
from worker.simulator.completions import Completion, Created
from worker.simulator.models import dated
from worker.simulator.options import Semantics
from worker.simulator.requests import PageQuery, check_pairs

PAST_SECONDS = 600.0
"""The oldest metadata that a stale read can show."""


class Store:
    """All completions, in the order of their creation. Callers pass the time, Unix seconds."""

    def __init__(self) -> None:
        self._by_id: dict[str, Completion] = {}
        # In the order of their numbers; deleted and replaced ones stay until they are half of the list.
        self._in_order: list[Completion] = []
        self._next_number = 0
        self._history: dict[str, deque[Mapping[str, str]]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<Store [{len(self)} completions]>"

    def add(
        self,
        completion_id: str,
        metadata: Mapping[str, str],
        *,
        model: str,
        now: float,
        lag_seconds: float = 0.0,
        origin: Created | None = None,
    ) -> Completion:
        """Add a completion; it replaces one with the same id. The map is not copied."""
        completion = Completion(
            id=completion_id,
            number=self._next_number,
            created=int(now),
            visible_at=now + lag_seconds,
            model=model,
            metadata=metadata,
            origin=origin,
        )
        self._next_number += 1
        self._by_id[completion_id] = completion
        self._in_order.append(completion)
        self._compact()
        return completion

    def get(self, completion_id: str) -> Completion:
        """Return the completion, visible or not; raises KeyError if there is none."""
        return self._by_id[completion_id]

    def find(self, completion_id: str, now: float) -> Completion:
        """Return the completion as clients see it.

        Raises:
            RequestError: 404, it does not exist or is not visible yet.
        """
        completion = self._by_id.get(completion_id)
        if completion is None or completion.visible_at > now:
            raise not_found(completion_id)
        return completion

    def update(
        self,
        completion: Completion,
        metadata: Mapping[str, str] | None,
        semantics: Semantics,
        *,
        history: int = 0,
        replaced_at: float | None = None,
    ) -> None:
        """Apply an update.

        Args:
            metadata: the map to store; None for null.
            history: how many maps to keep.
            replaced_at: the current Unix time, if stale reads must find the earlier map.

        Raises:
            RequestError: the merged map would have too many pairs; nothing changes.
        """
        if semantics == "replace":
            after: Mapping[str, str] = metadata or {}
        else:
            after = {**completion.metadata, **(metadata or {})}
            check_pairs(after)
        if replaced_at is not None:
            _keep_past(completion, replaced_at)
        completion.metadata = after
        if history:
            kept = self._history.get(completion.id)
            if kept is None or kept.maxlen != history:
                kept = self._history[completion.id] = deque(kept or (), maxlen=history)
            kept.append(after)

    def delete(self, completion: Completion) -> None:
        """Delete the completion."""
        del self._by_id[completion.id]
        self._compact()

    def _compact(self) -> None:
        if len(self._in_order) > 2 * len(self._by_id):
            self._in_order = sorted(self._by_id.values(), key=_number)

    def history(self, completion_id: str) -> list[dict[str, str]]:
        """The kept maps, oldest first."""
        return [dict(metadata) for metadata in self._history.get(completion_id, ())]

    def forget_history(self) -> None:
        """Clear all histories."""
        self._history.clear()

    def snapshot(self) -> list[Completion]:
        """Return every completion, visible or not."""
        return list(self._by_id.values())

    def neighbour(self, completion_id: str, now: float) -> Completion | None:
        """Return the next visible completion in the order of creation; after the last one, the first."""
        own = self._by_id.get(completion_id)
        start = 0 if own is None else bisect_right(self._in_order, own.number, key=_number)
        for position in chain(range(start, len(self._in_order)), range(start)):
            other = self._in_order[position]
            if other is not own and other.visible_at <= now and self._by_id.get(other.id) is other:
                return other
        return None

    def page(self, query: PageQuery, now: float, as_of: float) -> tuple[list[Completion], bool]:
        """Return one page of matching visible completions, and whether there are more.

        Args:
            as_of: the filter uses the metadata of this Unix time.

        Raises:
            RequestError: the completion in `after` does not exist.
        """
        found: list[Completion] = []
        for completion in self._from(query, now):
            if self._matches(completion, query, now, as_of):
                if len(found) == query.limit:
                    return found, True
                found.append(completion)
        return found, False

    def _from(self, query: PageQuery, now: float) -> Iterator[Completion]:
        """Yield all completions, deleted ones included, from the start of the page."""
        in_order = self._in_order
        start, stop = 0, len(in_order)
        if query.after is not None:
            cursor = self._cursor(query.after, now)
            if query.descending:
                stop = bisect_left(in_order, cursor.number, key=_number)
            else:
                start = bisect_right(in_order, cursor.number, key=_number)
        positions = range(start, stop)
        return (in_order[position] for position in (reversed(positions) if query.descending else positions))

    def _cursor(self, completion_id: str, now: float) -> Completion:
        completion = self._by_id.get(completion_id)
        if completion is None or completion.visible_at > now:
            raise RequestError(
                400, f"No chat completion found with id '{completion_id}'.", param="after", code="invalid_value"
            )
        return completion

    def _matches(self, completion: Completion, query: PageQuery, now: float, as_of: float) -> bool:
        if completion.visible_at > now or self._by_id.get(completion.id) is not completion:
            return False
        if query.model is not None and completion.model not in (query.model, dated(query.model)):
            return False
        if not query.metadata:
            return True
        metadata = completion.metadata_at(as_of)
        return all(metadata.get(key) == value for key, value in query.metadata)


def _keep_past(completion: Completion, now: float) -> None:
    """Keep the replaced map, and drop maps older than any stale read can show."""
    past = completion.past
    if past is None:
        past = completion.past = deque()
    past.append((now, completion.metadata))
    while past[0][0] < now - PAST_SECONDS:
        past.popleft()


def _number(completion: Completion) -> int:
    return completion.number
