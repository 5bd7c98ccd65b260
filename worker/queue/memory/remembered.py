"""What a queue in memory remembers of changes that are done."""

from collections.abc import Iterable

from worker.queue.batch import MAX_REMEMBERED
from worker.queue.rows import Remembered


class Done:
    """The change_ids that were settled, and the newest `as_of` that was applied by completion, oldest first."""

    def __init__(self) -> None:
        self._settled: dict[str, float] = {}  # time by change_id
        self._newest: dict[str, tuple[float, float]] = {}  # time and as_of by completion

    def is_settled(self, change_id: str | None) -> bool:
        return change_id in self._settled

    def newest(self, completion_ids: Iterable[str]) -> dict[str, float]:
        """Return the newest as_of of those completions that have one."""
        return {each: self._newest[each][1] for each in completion_ids if each in self._newest}

    def add(self, remembered: Remembered, now: float) -> None:
        """Remember these changes, too."""
        for change_id in remembered.change_ids:
            self._settled.pop(change_id, None)
            self._settled[change_id] = now
        for completion_id, as_of in remembered.as_of.items():
            _, before = self._newest.pop(completion_id, (now, as_of))
            self._newest[completion_id] = now, max(before, as_of)

    def forget(self, since: float, most: int) -> int:
        """Delete what was written before then, or is too much; return how much."""
        forgotten = 0
        times = {completion_id: settled_at for completion_id, (settled_at, _) in self._newest.items()}
        for kept, settled_at in ((self._settled, self._settled), (self._newest, times)):
            too_many = len(kept) - MAX_REMEMBERED
            old = [key for place, key in enumerate(kept) if place < too_many or settled_at[key] < since]
            for key in old[:most]:
                del kept[key]
            forgotten += len(old[:most])
        return forgotten
