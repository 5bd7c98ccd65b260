"""The floor: below it are no due targets but such as were passed over, so that a claim need not look there."""

from collections.abc import Callable
from datetime import datetime

# A target may lie below the floor because it was locked, or not committed yet, when a claim went past it.
_RESET_SECONDS = 60.0
# A claim that does not fill has seen all that is due above the floor. To look below each time would be to read all that
# is gone and not vacuumed yet, at every poll of an idle worker.
_SHORT_RESET_SECONDS = 1.0


class Floor:
    """Where the next claim begins to look.

    Args:
        monotonic: seconds.
    """

    __slots__ = ("_monotonic", "_reset_at", "visible_at")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.reset()

    def __repr__(self) -> str:
        return f"<Floor {self.visible_at or 'none'}>"

    def reset(self) -> None:
        """Let the next claim look everywhere."""
        self.visible_at: datetime | None = None
        self._reset_at = self._monotonic()

    def claimed(self, oldest: datetime | None, *, is_full: bool) -> None:
        """Take notice of a claim.

        Args:
            oldest: the earliest visible_at of what it took; None when it took nothing.
            is_full: whether it took as many as it was to.
        """
        age_seconds = self._monotonic() - self._reset_at
        if age_seconds >= (_RESET_SECONDS if is_full else _SHORT_RESET_SECONDS):
            self.reset()
        elif oldest is not None:
            self.visible_at = oldest
