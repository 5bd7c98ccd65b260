"""Counting over the last seconds, at a cost that does not grow with the count."""

_SLOT_SECONDS = 0.1
_SLOTS = 1204  # two minutes, and a few slots to spare for the one that is being filled


class Meter:
    """Counts events in slots of a tenth of a second and forgets them after two minutes."""

    __slots__ = ("_counts", "_newest")

    def __init__(self) -> None:
        self._counts = [0] * _SLOTS
        self._newest = 0

    def add(self, now: float, count: int = 1) -> None:
        """Count events at this time, which may lie up to two minutes back; a negative count takes some away."""
        slot = int(now / _SLOT_SECONDS)
        if slot > self._newest:
            self._forget_up_to(slot)
        if slot > self._newest - _SLOTS:
            self._counts[slot % _SLOTS] += count

    def count(self, since: float, until: float) -> int:
        """How many events there were after `since` and up to `until`, to the slot."""
        last = int(until / _SLOT_SECONDS)
        if last > self._newest:
            self._forget_up_to(last)
        first = max(int(since / _SLOT_SECONDS) + 1, self._newest - _SLOTS + 1)
        if first > last:
            return 0
        start, end = first % _SLOTS, last % _SLOTS + 1
        if start < end:
            return sum(self._counts[start:end])
        return sum(self._counts[start:]) + sum(self._counts[:end])

    def _forget_up_to(self, slot: int) -> None:
        for passed in range(max(self._newest + 1, slot - _SLOTS + 1), slot + 1):
            self._counts[passed % _SLOTS] = 0
        self._newest = slot
