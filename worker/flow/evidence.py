"""What the answers to one kind of call show: who got through, and which completions met the same in a row."""

from collections.abc import Collection

from worker.flow.ended import METADATA_HIDDEN, SERVICE_MERGES, End, Ended

FAILURES_OF_EVERYBODY = 5
ALIKE_IN_A_ROW = 20
# A reason to halt that three completions show: it is the service's nature, and all others would show it too.
TRAITS = (METADATA_HIDDEN, SERVICE_MERGES)
_COMPLETIONS_OF_A_TRAIT = 3
_NOTHING = (float("-inf"), "")


class Evidence:
    """Remembers successes and failures of one kind of call, read or update. Times are the flow's, in seconds.

    A failure is a completion's own fault only where another completion got through since. It is a common fault where
    enough completions meet it one after another, and none gets through between them.
    """

    __slots__ = ("_latest", "_second", "elsewhere_at", "rows", "successes")

    def __init__(self) -> None:
        self.successes = 0
        self.elsewhere_at = float("-inf")  # when another worker last said that something got through there
        self.forget()

    def __repr__(self) -> str:
        return f"<Evidence [{self.successes} got through, {len(self.row(End.FAILED))} failed in a row]>"

    def forget(self) -> None:
        """Another key is used from here on: what the old key met says nothing about the new one."""
        # By what they met: each completion, with the time when it first met that and with its latest words.
        self.rows: dict[str, dict[str, tuple[float, Ended]]] = {}
        # When the latest request that got through started, and whose it was; and the same of another completion.
        self._latest = self._second = _NOTHING

    @property
    def latest_at(self) -> float:
        """When the latest request started that got through; minus infinity when none did."""
        return self._latest[0]

    def row(self, met: str) -> dict[str, tuple[float, Ended]]:
        """The completions that met this in a row: an `End`, or a trait of the service."""
        return self.rows.get(met, {})

    def succeeded(self, completion_id: str, sent_at: float) -> None:
        """A request was done, and the answer shows it: that ends every row.

        A service that merges can still get some changes right, so of that row only this completion leaves.
        """
        self.successes += 1
        if self.rows:
            merged = self.row(SERVICE_MERGES)
            merged.pop(completion_id, None)
            self.rows = {SERVICE_MERGES: merged} if merged else {}
        latest = self._latest
        if latest[1] == completion_id:
            if sent_at > latest[0]:
                self._latest = (sent_at, completion_id)
        elif sent_at >= latest[0]:
            self._latest, self._second = (sent_at, completion_id), latest
        elif sent_at > self._second[0]:
            self._second = (sent_at, completion_id)

    def met(self, now: float, completion_id: str, word: Ended) -> bool:
        """A request failed, or its completion is absent or rejected.

        Returns:
            whether so many completions met the same in a row that no single one is at fault.
        """
        met = word.reason if word.reason in TRAITS else word.end
        row = self.rows.setdefault(met, {})
        if completion_id in row or len(row) < ALIKE_IN_A_ROW:  # a longer row would say nothing more
            row[completion_id] = (row.get(completion_id, (now,))[0], word)
        if met in TRAITS:
            return len(row) >= _COMPLETIONS_OF_A_TRAIT
        return len(row) >= (FAILURES_OF_EVERYBODY if met is End.FAILED else ALIKE_IN_A_ROW)

    def alike(self) -> tuple[float, Ended] | None:
        """What twenty completions in a row met, absent or rejected: since when, and the latest words."""
        for end in (End.ABSENT, End.REJECTED):
            row = self.row(end)
            if len(row) >= ALIKE_IN_A_ROW:
                return next(iter(row.values()))[0], next(reversed(row.values()))[1]
        return None

    def others_got_through(self, completion_id: str, since: float, *, elsewhere: bool) -> bool:
        """Whether another completion got through with a request that started after `since`.

        Args:
            elsewhere: whether what another worker says counts, too.
        """
        at, latest = self._latest
        here_at = self._second[0] if latest == completion_id else at
        return here_at > since or (elsewhere and self.elsewhere_at > since)

    def all_failed(self, in_hand: Collection[str]) -> bool:
        """Whether there was a failure, and all these completions have failed since the last success."""
        row = self.row(End.FAILED)
        return bool(row) and all(each in row for each in in_hand)
