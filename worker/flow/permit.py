"""The right to start one request."""

from collections.abc import Callable

from worker.flow.ended import DROPPED, Ended, Operation


class Permit:
    """One request that may start now. Call `end` once, when the request has ended; that frees its slot.

    Args:
        sent_at: when the permit was given, by the flow's clock.
        on_end: takes the permit back.
        is_probe: whether the request is a probe of a halted gate.
        is_urgent: whether it went before others that waited.
    """

    __slots__ = ("_on_end", "completion_id", "is_probe", "is_urgent", "operation", "sent_at")

    def __init__(
        self,
        completion_id: str,
        operation: Operation,
        sent_at: float,
        on_end: Callable[["Permit", Ended], None],
        *,
        is_probe: bool = False,
        is_urgent: bool = False,
    ) -> None:
        self.completion_id = completion_id
        self.operation = operation
        self.sent_at = sent_at
        self.is_probe = is_probe
        self.is_urgent = is_urgent
        self._on_end: Callable[[Permit, Ended], None] | None = on_end

    def __repr__(self) -> str:
        return f"<Permit {'running' if self._on_end else 'spent'}{' probe' if self.is_probe else ''}>"

    def end(self, ended: Ended) -> None:
        """Say what became of the request.

        Raises:
            RuntimeError: the permit has ended before.
        """
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            raise RuntimeError("a permit ends once")
        on_end(self, ended)

    def drop(self) -> None:
        """Free the slot and say nothing about the service, unless the permit has ended before."""
        if self._on_end is not None:
            self.end(DROPPED)
