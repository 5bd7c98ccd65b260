"""Claims whose commit the server did not answer: they may be stored, or not."""

from collections.abc import Iterable

import msgspec

from worker.queue.pending import Claim
from worker.queue.postgres.connections import Connection
from worker.queue.postgres.operations import release

# A server may not answer for days. When there are so many claims, the leases of the first have run out.
_MOST_CLAIMS = 10_000


class UnansweredClaims:
    """Claims whose caller got no answer. The next claim gives them back, so that no worker waits for their leases."""

    __slots__ = ("_claims",)

    def __init__(self) -> None:
        self._claims: list[Claim] = []

    async def give_back(self, connection: Connection) -> None:
        """Give back those that were stored. They stay known until that is answered."""
        if self._claims:
            await release(connection, self._claims)

    def add(self, claims: Iterable[Claim]) -> None:
        """Remember claims that may be stored."""
        # Without their changes, which take megabytes.
        keys = [msgspec.structs.replace(claim, changes=(), confirmed=None) for claim in claims]
        self._claims = [*self._claims, *keys][-_MOST_CLAIMS:]

    def forget(self) -> None:
        """Forget them, since they are given back."""
        self._claims = []
