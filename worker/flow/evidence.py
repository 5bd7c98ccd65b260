"""What the answers to one kind of call show: who got through, and who has failed in a row."""

from collections.abc import Collection

from worker.flow.ended import End, Ended

FAILURES_OF_EVERYBODY = 5
ALIKE_IN_A_ROW = 20
_NOTHING = (float("-inf"), "")


class Evidence:
    """Remembers successes and failures of one kind of call, read or update. Times are the flow's, in seconds.

    Evidence is relative: a failure is a completion's own only where another one got through since; and it is
    everybody's where different completions meet it one after another, with none that gets through between them.
    """

    __slots__ = ("_latest", "_second", "alike", "elsewhere_at", "row", "successes")

    def __init__(self) -> None:
        self.successes = 0
        self.elsewhere_at = float("-inf")  # when another worker last said that something got through there
        self.forget()

    def __repr__(self) -> str:
        return f"<Evidence [{self.successes} got through, {len(self.row)} failed in a row]>"

    def forget(self) -> None:
        """Another key is used from here on: what the one before met says nothing about it."""
        self.row: dict[str, Ended] = {}  # by completion, the last word of each; the first to fail comes first
        # By completion, when it first met what looks like its own fault, and in which words.
        self.alike: dict[End, dict[str, tuple[float, Ended]]] = {End.ABSENT: {}, End.REJECTED: {}}
        # When the latest request that got through started, and whose it was; and the same of another completion.
        self._latest = self._second = _NOTHING

    @property
    def latest_at(self) -> float:
        """When the latest request started that got through; minus infinity when none did."""
        return self._latest[0]

    def succeeded(self, completion_id: str, sent_at: float) -> None:
        """A request was done, and the answer shows it."""
        self.successes += 1
        if self.row:
            self.row = {}
        for row in self.alike.values():
            row.clear()
        latest = self._latest
        if latest[1] == completion_id:
            if sent_at > latest[0]:
                self._latest = (sent_at, completion_id)
        elif sent_at >= latest[0]:
            self._latest, self._second = (sent_at, completion_id), latest
        elif sent_at > self._second[0]:
            self._second = (sent_at, completion_id)

    def failed(self, completion_id: str, word: Ended) -> None:
        """A request failed in a way that may concern everybody."""
        self.row[completion_id] = word

    def met(self, now: float, completion_id: str, word: Ended) -> None:
        """A completion is absent or rejected, in whatever words; the row grows to twenty."""
        row = self.alike[word.end]
        if completion_id in row or len(row) < ALIKE_IN_A_ROW:
            row[completion_id] = (row.get(completion_id, (now,))[0], word)

    def met_by_all(self) -> tuple[float, Ended] | None:
        """What twenty completions in a row met alike, so that none may be blamed for it, and since when."""
        for row in self.alike.values():
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

    def is_everybodys(self, in_hand: Collection[str] | None = None) -> bool:
        """Whether so many have failed in a row that it is no fault of theirs.

        Args:
            in_hand: all the completions that there are; None where there may be more.
        """
        if len(self.row) >= FAILURES_OF_EVERYBODY:
            return True
        return bool(self.row) and in_hand is not None and all(each in self.row for each in in_hand)
