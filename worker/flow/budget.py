"""The retry budget: failures must not multiply the load on a service that is in trouble."""

_CAPACITY = 10.0
_REFUND = 0.1


class RetryBudget:
    """Ten tokens; a retry within the worker costs one, a success brings back a tenth. Throttles touch it not at all.

    The figures are those of the retry throttling of gRPC (proposal A6) with its suggested ratio.
    """

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = _CAPACITY

    def spend(self) -> bool:
        """Take a token for a retry; False, and nothing taken, when less than one is left."""
        if self.tokens < 1.0 - 1e-9:  # ten refunds of a tenth make a whole one
            return False
        self.tokens -= 1.0
        return True

    def succeeded(self) -> None:
        """Bring back a success's share."""
        self.tokens = min(_CAPACITY, self.tokens + _REFUND)
