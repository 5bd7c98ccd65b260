"""Claims that were about to be committed when the server was heard no more: they may have come to pass, or not."""

from collections.abc import Iterable

import msgspec

from worker.queue.pending import Claim
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.operations import release

# A server may not answer for days. The leases of the first claims have run out by the time that there are so many.
_MOST_CLAIMS = 10_000


class UnansweredClaims:
    """Claims that no caller has heard of. The next one gives them back, so that nobody has to wait for their leases."""

    __slots__ = ("_claims",)

    def __init__(self) -> None:
        self._claims: list[Claim] = []

    async def give_back(self, connection: Connection) -> None:
        """Give them back, those of them that were stored; they are known until that is answered."""
        if self._claims:
            await release(connection, self._claims)

    def add(self, claims: Iterable[Claim]) -> None:
        """Remember what was claimed, maybe."""
        # Without what they carry: that is megabytes each time.
        keys = [msgspec.structs.replace(claim, changes=(), confirmed=None) for claim in claims]
        self._claims = [*self._claims, *keys][-_MOST_CLAIMS:]

    def forget(self) -> None:
        """They are given back."""
        self._claims = []
