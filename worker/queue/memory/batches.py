"""The batches of a queue in memory."""

from dataclasses import replace

from worker.queue.batch import MAX_FINISHED_BATCHES, Batch


class BatchCounts:
    """Batches with what became of their changes, in order of creation."""

    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}

    def read(self, name: str | None) -> list[Batch]:
        """Return all batches, the newest first, or the one with this name."""
        return [batch for batch in reversed(self._batches.values()) if name in (None, batch.name)]

    def add(self, name: str, now: float, *, changes: int = 0, **ends: int) -> None:
        """Add to a batch's counts; create the batch if it does not exist (any more)."""
        batch = self._batches.get(name) or Batch(name, now, 0)
        counts = {end: getattr(batch, end) + count for end, count in ends.items()}
        if any(ends.values()):
            counts |= {"first_done_at": batch.first_done_at or now, "last_done_at": now}
        self._batches[name] = replace(
            batch, changes=batch.changes + changes, last_put_at=now if not ends else batch.last_put_at, **counts
        )

    def take_from_dead(self, name: str, now: float) -> None:
        """Count a letter of the batch as pending again; recreate the batch if it was forgotten meanwhile."""
        if name in self._batches and self._batches[name].dead:
            self._batches[name] = replace(self._batches[name], dead=self._batches[name].dead - 1)
        else:
            self.add(name, now, changes=1)

    def forget(self, since: float, most: int) -> int:
        """Delete finished batches that were last heard of before then, or are too many; return how many."""
        finished = [batch for batch in self._batches.values() if not batch.pending]
        too_many = len(finished) - MAX_FINISHED_BATCHES
        gone = [each.name for place, each in enumerate(finished) if place < too_many or each.last_heard_of_at < since]
        for name in gone[:most]:
            del self._batches[name]
        return len(gone[:most])
