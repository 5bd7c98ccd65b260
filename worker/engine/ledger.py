"""The ledger of one claim: which changes are decided, and how. It makes the outcome."""

from collections.abc import Iterable, Mapping

import msgspec

from worker.api import Answer
from worker.changes import InvalidChange, MetadataChange, Mode
from worker.changes.change import MODES
from worker.engine.blame import Blame
from worker.engine.outcome import Deferral, Outcome
from worker.engine.work import Work
from worker.flow import Operation
from worker.queue import Death, QueuedChange, Reason

_MODES: dict[str, Mode] = {mode: mode for mode in MODES}
_metadata_decoder = msgspec.json.Decoder(dict[str, str | None])


class Ledger:
    """Decides each claimed change at most once.

    Args:
        blame: keeps the failures of the changes.
    """

    # Attributes of the class, as nearly all ledgers leave most of them as they are.
    _answer: Answer | None = None
    error: str | None = None
    before: Mapping[str, str] | None = None
    metadata: dict[str, str] | None = None
    leftover_keys: tuple[str, ...] = ()
    leftover = 0
    verified = True
    absent_seconds: float | None = None
    second_look = False
    confirmed: dict[str, str] | None = None
    operation: Operation = "update"

    def __init__(self, work: Work, blame: Blame) -> None:
        self._work = work
        self.blame = blame
        self._open: dict[int, QueuedChange] = {}
        for change in work.claim.changes:
            self._open[change.number] = change
        self._applied: list[QueuedChange] = []
        self._unchanged: list[QueuedChange] = []
        self._superseded: list[QueuedChange] = []
        self._newest_as_of = work.claim.newest_as_of
        self._dead: list[tuple[QueuedChange, Death]] = []
        self._keys: dict[str, object] = {}  # an ordered set: the values mean nothing

    @property
    def undecided(self) -> list[int]:
        """Numbers of the changes that are still open."""
        return list(self._open)

    def decode(self) -> dict[int, MetadataChange]:
        """The claimed changes by number, oldest first. A change that breaks a rule dies as `invalid`.

        Each change was validated when it was enqueued. But others can write to the store's file or server.
        """
        changes = {}
        for queued in self._work.claim.changes:
            try:
                changes[queued.number] = change = decoded(queued)
            except InvalidChange as error:
                self.die([queued.number], "invalid", error=str(error))
            else:
                self._keys.update(change.metadata)
        return changes

    def is_open(self, number: int) -> bool:
        """Whether this change is still open."""
        return number in self._open

    def answered(self, answer: Answer, operation: Operation) -> None:
        """Keep the last answer: its status, request id and error go with what it decides."""
        self._answer = answer
        self.operation = operation
        self.error = answer.verdict.error

    def applied(self, numbers: Iterable[int]) -> None:
        """These changes are applied."""
        self._done(numbers, self._applied)

    def unchanged(self, numbers: Iterable[int]) -> None:
        """The service had the metadata of these changes already."""
        self._done(numbers, self._unchanged)

    def _done(self, numbers: Iterable[int], group: list[QueuedChange]) -> None:
        for number in numbers:
            change = self._open.pop(number)
            group.append(change)
            if change.as_of is not None:
                self._newest_as_of = max(change.as_of, self._newest_as_of or 0.0)

    def supersede(self, numbers: Iterable[int]) -> None:
        """Supersede the changes with an older `as_of` than the newest applied; the others stay open."""
        newest = self._newest_as_of
        if newest is None:
            return
        for number in list(numbers):
            change = self._open[number]
            if change.as_of is not None and change.as_of < newest:
                self._superseded.append(self._open.pop(number))

    def die(
        self, numbers: Iterable[int], reason: Reason, *, error: str | None = None, answer: Answer | None = None
    ) -> None:
        """These changes become dead letters.

        Args:
            error: what was wrong; None for the last answer's error.
            answer: the answer that decided; None for the last one.
        """
        answer = answer or self._answer
        verdict = answer.verdict if answer else None
        for number in numbers:
            death = Death(
                number,
                reason,
                self.blame.attempts,
                status=verdict.status if verdict else None,
                error=error or self.error,
                request_id=verdict.request_id if verdict else None,
            )
            self._dead.append((self._open.pop(number), death))

    def outcome(self, now: float, *, deferral: Deferral = Deferral.RELEASED, delay_seconds: float = 0.0) -> Outcome:
        """The claim's outcome, with what is decided so far.

        Args:
            now: monotonic seconds, by the clock of `Work.claimed_at`.
            deferral, delay_seconds: for the changes that are still open.
        """
        work, answer = self._work, self._answer
        claim = work.claim
        lag_seconds = claim.age_seconds + now - work.claimed_at
        decided = Outcome(  # by position: so many arguments take four times as long by name
            claim,
            self._applied,
            self._unchanged,
            self._superseded,
            self._dead,
            list(self._keys),
            self.before,
            self.metadata,
            self.confirmed,
            self.verified,
            self.leftover_keys,
            self.leftover,
            self.blame.attempts if work.has_trials else 0,
            self.error,
            answer.verdict.status if answer else None,
            answer.verdict.request_id if answer else None,
            # In tenths: `round` writes a figure out and reads it again, at ten times the cost.
            int(answer.duration_ms * 10.0 + 0.5) / 10.0 if answer else None,
            int(lag_seconds * 10_000.0 + 0.5) / 10.0,
        )
        if not self._open:
            return decided
        return msgspec.structs.replace(
            decided,
            deferred=list(self._open.values()),
            deferral=deferral,
            delay_seconds=delay_seconds,
            absent_seconds=self.absent_seconds,
            second_look=self.second_look,
            trials=self.blame.records(self._open),
        )


def decoded(queued: QueuedChange) -> MetadataChange:
    """The stored change, decoded, without its change_id.

    Raises:
        InvalidChange: the stored text breaks a rule.
    """
    try:
        metadata = _metadata_decoder.decode(queued.metadata)
    except msgspec.DecodeError:
        raise InvalidChange("what is stored as metadata is not a JSON object of strings") from None
    mode = _MODES.get(queued.mode)
    if mode is None:
        raise InvalidChange(f"what is stored as mode is none: {queued.mode!a}")
    # The change_id was checked when it was stored, perhaps by an older version, which took more of them.
    return MetadataChange(queued.completion_id, metadata, mode, as_of=queued.as_of)
