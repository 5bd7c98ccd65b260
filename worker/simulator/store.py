"""The stored completions: created, found, changed, listed and deleted, in memory."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping

from worker.simulator.answers import RequestError, not_found
from worker.simulator.completions import Completion, Created
from worker.simulator.options import Semantics
from worker.simulator.requests import PageQuery, check_pairs


class Store:
    """All completions, in the order of their creation. It is handed the time, as Unix seconds."""

    def __init__(self) -> None:
        self._by_id: dict[str, Completion] = {}
        # In the order of their numbers; what is deleted or replaced stays until half of them are such.
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
        """Keep a completion; one of the same id is forgotten. The map is kept as it is, not copied."""
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
        """The completion, visible or not. Raises KeyError where there is none."""
        return self._by_id[completion_id]

    def find(self, completion_id: str, now: float) -> Completion:
        """The completion as clients see it.

        Raises:
            RequestError: 404, there is none, or not yet.
        """
        completion = self._by_id.get(completion_id)
        if completion is None or completion.visible_at > now:
            raise not_found()
        return completion

    def update(
        self, completion: Completion, metadata: Mapping[str, str] | None, semantics: Semantics, history: int
    ) -> None:
        """Let an update take effect.

        Args:
            metadata: as it was sent; None for null.
            history: how many maps are remembered.

        Raises:
            RequestError: the merged map would have too many pairs; nothing is changed.
        """
        if semantics == "replace":
            after: Mapping[str, str] = metadata or {}
        else:
            after = {**completion.metadata, **(metadata or {})}
            check_pairs(after)
        completion.metadata = after
        if history:
            kept = self._history.get(completion.id)
            if kept is None or kept.maxlen != history:
                kept = self._history[completion.id] = deque(kept or (), maxlen=history)
            kept.append(after)

    def delete(self, completion: Completion) -> None:
        """Forget the completion."""
        del self._by_id[completion.id]
        self._compact()

    def _compact(self) -> None:
        if len(self._in_order) > 2 * len(self._by_id):
            self._in_order = sorted(self._by_id.values(), key=_number)

    def history(self, completion_id: str) -> list[dict[str, str]]:
        """The maps that took effect, oldest first, as far as they are remembered."""
        return [dict(metadata) for metadata in self._history.get(completion_id, ())]

    def forget_history(self) -> None:
        """Start all histories anew."""
        self._history.clear()

    def snapshot(self) -> list[Completion]:
        """Every completion there is now, visible or not."""
        return list(self._by_id.values())

    def page(self, query: PageQuery, now: float) -> tuple[list[Completion], bool]:
        """One page of the visible completions that match, and whether there are more.

        Raises:
            RequestError: the page is to begin after a completion that is not there.
        """
        found: list[Completion] = []
        for completion in self._from(query, now):
            if self._matches(completion, query, now):
                if len(found) == query.limit:
                    return found, True
                found.append(completion)
        return found, False

    def _from(self, query: PageQuery, now: float) -> Iterator[Completion]:
        """All completions, deleted ones among them, from where the page begins."""
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

    def _matches(self, completion: Completion, query: PageQuery, now: float) -> bool:
        if completion.visible_at > now or self._by_id.get(completion.id) is not completion:
            return False
        if query.model is not None and completion.model != query.model:
            return False
        return all(completion.metadata.get(key) == value for key, value in query.metadata)


def _number(completion: Completion) -> int:
    return completion.number
