"""What the answers to one kind of call show: who got through, and who has failed in a row."""

from collections.abc import Collection

from worker.flow.ended import Ended

FAILURES_OF_EVERYBODY = 5
ALIKE_IN_A_ROW = 20
_NOTHING = (float("-inf"), "")


class Evidence:
    """Remembers successes and failures of one kind of call, read or update. Times are the flow's, in seconds.

    Evidence is relative: a failure is a completion's own only where another one got through since; and it is
    everybody's where different completions meet it one after another, with none that gets through between them.
    """

    __slots__ = ("_latest", "_second", "elsewhere_at", "row", "successes")

    def __init__(self) -> None:
        self.successes = 0
        self.row: dict[str, Ended] = {}  # by completion, the last word of each; the first to fail comes first
        self.elsewhere_at = float("-inf")  # when another worker last said that something got through there
        # When the latest request that got through started, and whose it was; and the same of another completion.
        self._latest = self._second = _NOTHING

    def __repr__(self) -> str:
        return f"<Evidence [{self.successes} got through, {len(self.row)} failed in a row]>"

    @property
    def latest_at(self) -> float:
        """When the latest request started that got through; minus infinity when none did."""
        return self._latest[0]

    def succeeded(self, completion_id: str, sent_at: float) -> None:
        """A request was done, and the answer shows it."""
        self.successes += 1
        if self.row:
            self.row = {}
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

    def forget(self) -> None:
        """Another key is used from here on: what the one before met says nothing about it."""
        self.row = {}
        self._latest = self._second = _NOTHING


class Alike:
    """Counts different completions that met one kind of refusal one after another, none getting through between."""

    __slots__ = ("completions", "since", "word")

    def __init__(self) -> None:
        self.completions: set[str] = set()
        self.word: Ended | None = None
        self.since = 0.0  # when the first of them met it

    def __repr__(self) -> str:
        return f"<Alike [{len(self.completions)} in a row]>"

    def met(self, now: float, completion_id: str, word: Ended) -> None:
        """A completion met such a refusal, in whatever words."""
        if self.word is None:
            self.since = now
        self.word = word
        if len(self.completions) < ALIKE_IN_A_ROW:
            self.completions.add(completion_id)

    @property
    def is_everybodys(self) -> bool:
        """Whether no completion may be blamed for it."""
        return len(self.completions) >= ALIKE_IN_A_ROW

    def clear(self) -> None:
        """Something got through."""
        self.completions, self.word = set(), None
