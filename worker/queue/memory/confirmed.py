"""What the service confirmed last, in memory."""

from collections.abc import Iterable, Sequence

from worker.queue import confirmed
from worker.queue.pending import Claim, Settlement


class ConfirmedMaps:
    """Time and map by completion, oldest first."""

    def __init__(self) -> None:
        self._maps: dict[str, tuple[float, dict[str, str]]] = {}

    def add(self, settlements: Iterable[Settlement], now: float, *, since: float) -> bool:
        """Keep what was confirmed, and delete what is older; return whether there is no room for all since then."""
        for completion_id, metadata in confirmed.confirmed_by(settlements).items():
            self._maps.pop(completion_id, None)
            self._maps[completion_id] = now, dict(metadata)
        is_short = False
        while self._maps:
            completion_id, (written_at, _) = next(iter(self._maps.items()))
            if written_at > since and len(self._maps) <= confirmed.MAX_UPDATES:
                break
            is_short = is_short or written_at > since
            del self._maps[completion_id]
        return is_short

    def attached(self, claims: Sequence[Claim], *, since: float) -> list[Claim]:
        """Return the claims with what was confirmed since then."""
        found = {each: self._maps.get(each, (since, {})) for each in confirmed.merged_first(claims)}
        maps = {each: dict(metadata) for each, (written_at, metadata) in found.items() if written_at > since}
        return confirmed.with_confirmed(claims, maps)

    def forget(self, since: float, most: int) -> None:
        """Delete what was written up to then."""
        for completion_id in [each for each, (written_at, _) in self._maps.items() if written_at <= since][:most]:
            del self._maps[completion_id]
