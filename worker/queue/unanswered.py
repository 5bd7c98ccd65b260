"""Remember settlements whose answer was lost: if one was stored, repeating it must not count as stale."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Generic, TypeVar

from worker.queue.pending import Settlement

T = TypeVar("T")

_MOST_SETTLEMENTS = 10_000  # beyond it, the oldest are dropped
# Per settlement. A store may be unavailable for days, and each attempt is a call. A stored settlement was stored by one
# of the first calls, before the outage, or by one of the last, after it: calls in between are dropped.
_MOST_CALLS = 40


class UnansweredSettlements(Generic[T]):
    """For each claim, the calls that may have settled it, in the store's own form."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int], list[T]] = {}

    def add(self, settlement: Settlement, call: T) -> None:
        """Remember that this call may have stored the settlement."""
        calls = self._calls.setdefault(settlement.claim.key, [])
        if len(calls) == _MOST_CALLS:
            del calls[_MOST_CALLS // 2]
        calls.append(call)
        if len(self._calls) > _MOST_SETTLEMENTS:
            del self._calls[next(iter(self._calls))]

    def calls(self, settlements: Iterable[Settlement]) -> list[T]:
        """Return the earlier calls of these settlements, one entry per settlement."""
        if not self._calls:
            return []
        return [call for each in settlements for call in self._calls.get(each.claim.key, ())]

    def remembered(self) -> Iterable[T]:
        """Return all calls, one entry per settlement that may have to be repeated."""
        return chain.from_iterable(self._calls.values())

    def not_stored(self, stale: Sequence[Settlement], stored: Callable[[Settlement, T], bool]) -> list[Settlement]:
        """Return the stale settlements that no call has stored.

        Args:
            stored: whether this call stored the settlement.
        """
        calls = self._calls
        return [each for each in stale if not any(stored(each, call) for call in calls.get(each.claim.key, ()))]

    def forget(self, settlements: Iterable[Settlement]) -> None:
        """Drop settlements that are answered now."""
        if self._calls:
            for settlement in settlements:
                self._calls.pop(settlement.claim.key, None)
