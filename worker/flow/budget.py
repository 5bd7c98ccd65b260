"""The retry budget: failures must not multiply the load on a service that is in trouble."""

_CAPACITY = 10.0
_RETRY_COST = 1.0
_SUCCESS_REFUND = 0.1


class RetryBudget:
    """Ten tokens; an in-process retry costs one, a success brings back a tenth. Throttles touch it not at all.

    The figures are those of the retry throttling of gRPC (proposal A6) with its suggested ratio.
    """

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = _CAPACITY

    @property
    def tokens(self) -> float:
        return self._tokens

    def spend(self) -> bool:
        """Take a token for a retry; False, and nothing taken, when less than one is left."""
        if self._tokens < _RETRY_COST - 1e-9:  # ten refunds of a tenth make a whole one
            return False
        self._tokens -= _RETRY_COST
        return True

    def succeeded(self) -> None:
        """Bring back a success's share."""
        self._tokens = min(_CAPACITY, self._tokens + _SUCCESS_REFUND)
