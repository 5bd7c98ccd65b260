"""Settlements whose answer was lost: they may have been stored. Said again, those that were are not stale."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Generic, TypeVar

from worker.queue.pending import Settlement

T = TypeVar("T")

_MOST_SETTLEMENTS = 10_000  # those that were said again are known no longer
# Of one settlement: a store may be away for days, and each attempt counts as a call. What was stored was so by one of
# the first calls, before the store went, or by one of the last, since it is back: those between go.
_MOST_CALLS = 40


class UnansweredSettlements(Generic[T]):
    """By claim, what a store needs to find out whether a call that settled it was carried out."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int], list[T]] = {}

    def add(self, settlement: Settlement, call: T) -> None:
        """Remember that this call was to settle it, and may have done so."""
        calls = self._calls.setdefault(settlement.claim.key, [])
        if len(calls) == _MOST_CALLS:
            del calls[_MOST_CALLS // 2]
        calls.append(call)
        if len(self._calls) > _MOST_SETTLEMENTS:
            del self._calls[next(iter(self._calls))]

    def calls(self, settlements: Iterable[Settlement]) -> list[T]:
        """Give the calls in which these were settled before, each as often as that."""
        if not self._calls:
            return []
        return [call for each in settlements for call in self._calls.get(each.claim.key, ())]

    def remembered(self) -> Iterable[T]:
        """Give all calls, each as often as settlements of it may have to be said again."""
        return chain.from_iterable(self._calls.values())

    def not_stored(self, stale: Sequence[Settlement], stored: Callable[[Settlement, T], bool]) -> list[Settlement]:
        """Give those of the stale ones that no call has stored.

        Args:
            stored: whether this call did.
        """
        calls = self._calls
        return [each for each in stale if not any(stored(each, call) for call in calls.get(each.claim.key, ()))]

    def forget(self, settlements: Iterable[Settlement]) -> None:
        """They are answered now."""
        if self._calls:
            for settlement in settlements:
                self._calls.pop(settlement.claim.key, None)
