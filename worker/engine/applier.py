"""The applier: turns one claim into one outcome, with one or two requests."""

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, assert_never

import structlog

from worker.api import OK, Answer, Kind, RetryPolicy, backoff_seconds
from worker.changes import MetadataChange
from worker.changes.fold import fold, needs_current
from worker.engine.blame import Blame, Rules
from worker.engine.calls import Calls, GiveBack
from worker.engine.ledger import Ledger
from worker.engine.outcome import Deferral, Outcome
from worker.engine.showing import HIDDEN, NOT_AS_WANTED, Wanted, ending_of, shown_by_read, wrong_keys
from worker.engine.tallies import Tallies
from worker.engine.work import Interruption, Work
from worker.flow import FAULT, End, Ended, Flow

# In 14 recorded polls a fresh completion appeared after 1 to 6 s. So the first look is early, later ones are rarer.
_NOT_FOUND_SHORTEST_SECONDS = 1.0
_NOT_FOUND_LONGEST_SECONDS = 60.0
# A request that was cut off may still be at work in the service: recorded updates took 3.6 and 5.8 s.
CUT_OFF_DELAY_SECONDS = 5.0
# A failure that may hit every completion is retried soon, because it often ends soon.
_LONGEST_UNCOUNTED_SECONDS = 10.0
_LONGEST_HELD_SECONDS = 60.0  # for refused changes that may not be at fault
_SHORTEST_UNPERSISTED_SECONDS = 1.0

# Turns a claim into its outcome. Callers may wrap it.
Apply = Callable[[Work], Awaitable[Outcome]]

_TOO_MANY_KEYS = "with this change the completion would have more than 16 pairs"
_NOT_WHOLE = (
    "the completion's metadata holds values that are no strings and cannot be sent back: a merge would wipe them"
)


class Completions(Protocol):
    """The requests that the engine makes. `worker.api.Client` implements them."""

    async def get(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """Read a completion."""

    async def update(
        self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float, fresh: bool = False
    ) -> Answer:
        """Set a completion's metadata to exactly this map; `fresh` asks for a new connection."""


class Applier:
    """Applies claims. Any number of tasks may share one applier.

    Args:
        policy: the backoff between attempts.
        random: the source of jitter.
        clock: monotonic seconds.
        tallies: count the changes of each update.
        logger: gets `change.crashed` for a bug of the worker's.
    """

    def __init__(  # noqa: PLR0917 -- its neighbours, handed over once
        self,
        client: Completions,
        calls: Calls,
        flow: Flow,
        rules: Rules,
        policy: RetryPolicy,
        random: random_module.Random,
        clock: Callable[[], float],
        tallies: Tallies,
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self.client = client
        self.calls = calls
        self.flow = flow
        self.rules = rules
        self.policy = policy
        self.random = random
        self.clock = clock
        self.tallies = tallies
        self.logger = logger

    def apply(self, work: Work) -> Awaitable[Outcome]:
        """Bring the completion in line with the claim's changes, as far as the service allows."""
        return _Application(self, work).run()


class _Application:
    """One claim on its way. Methods that send return the seconds until the open changes are tried again."""

    def __init__(self, applier: Applier, work: Work) -> None:
        self._applier = applier
        self._rules = applier.rules
        self._work = work
        self._blame = Blame(work, applier.flow, applier.rules, applier.clock)
        self._ledger = Ledger(work, self._blame)
        self._completion_id = work.claim.completion_id

    async def run(self) -> Outcome:
        deferral, delay_seconds = Deferral.RETRY, 0.0
        try:
            changes: Mapping[int, MetadataChange] = self._ledger.decode()
            if self._work.claim.newest_as_of is not None:
                changes = self._supersede(changes)
            delay_seconds = await self._apply(changes)
        except GiveBack as given_back:
            deferral, delay_seconds = given_back.deferral, given_back.delay_seconds
        except asyncio.CancelledError:
            if not self._work.was_interrupted():
                raise
            deferral = Deferral.RELEASED
            delay_seconds = CUT_OFF_DELAY_SECONDS if self._work.interruption is Interruption.CUT_OFF else 0.0
        except Exception as error:  # a bug that one claim meets must not stop the others
            self._applier.logger.exception("change.crashed", completion_id=self._completion_id)
            delay_seconds = self._judge_fault(f"internal error: {type(error).__name__}")
        return self._ledger.outcome(self._applier.clock(), deferral=deferral, delay_seconds=delay_seconds)

    async def _apply(self, changes: Mapping[int, MetadataChange]) -> float:
        """Send all changes as one update."""
        in_order = list(changes.values())
        if not in_order:
            return 0.0
        current, is_stale = None, False
        if needs_current(in_order):
            current, is_stale = await self._read(changes)
        folded = fold(current or {}, in_order)
        refused: list[int] = []
        older: list[int] = []
        accepted = list(changes)
        if folded.too_many_keys or folded.superseded:
            refused = [accepted[position] for position in folded.too_many_keys]
            older = [accepted[position] for position in folded.superseded]
            left_out = {*refused, *older}
            accepted = [number for number in changes if number not in left_out]
        if not accepted or (folded.metadata == current and not is_stale):
            self._ledger.metadata = folded.metadata
            self._refuse(refused)
            self._ledger.unchanged(accepted)
            self._ledger.supersede(older)
            return 0.0
        taken = {number: changes[number] for number in accepted} if refused or older else changes
        wanted = Wanted(folded.metadata, taken)
        answer = await self._send(wanted)
        if len(changes) > 1 and answer.verdict.kind is Kind.REJECTED:
            return await self._apply_one_by_one(changes, current)
        if refused:
            self._refuse(refused)
        if older:
            return await self._judge_with_older(accepted, {number: changes[number] for number in older}, answer, wanted)
        return self._judge(accepted, answer, wanted)

    async def _judge_with_older(
        self, accepted: Collection[int], older: Mapping[int, MetadataChange], answer: Answer, wanted: Wanted
    ) -> float:
        """Judge an update's answer, and decide the older changes that the update left out.

        Args:
            accepted: the changes that were sent.
            older: the changes that were not sent: one of those sent has a newer `as_of`.
        """
        if answer.verdict.kind is not Kind.OK:  # a failure concerns the completion, and so all its changes
            return self._judge([*accepted, *older], answer, wanted)
        delay_seconds = self._judge(accepted, answer, wanted)
        if any(map(self._ledger.is_open, accepted)):
            return delay_seconds
        # The change that was newer may be dead after this answer. Then the older ones are sent.
        return await self._apply(self._supersede(older))

    def _supersede(self, changes: Mapping[int, MetadataChange]) -> Mapping[int, MetadataChange]:
        """Supersede the changes that are older than the newest one applied; return the others."""
        self._ledger.supersede(changes)
        return {number: change for number, change in changes.items() if self._ledger.is_open(number)}

    async def _apply_one_by_one(
        self, changes: Mapping[int, MetadataChange], current: Mapping[str, str] | None
    ) -> float:
        """Send each change alone after all together were rejected, so that a bad one takes no other with it.

        Args:
            current: the completion's metadata; None if it was not read.
        """
        delay_seconds, held = 0.0, dict[int, Answer]()
        for number, change in changes.items():
            if change.as_of is not None:
                self._ledger.supersede([number])
                if not self._ledger.is_open(number):
                    continue
            if current is None and needs_current([change]):
                current, _ = await self._read([number])
            folded = fold(current or {}, [change])
            if folded.too_many_keys:
                self._refuse([number])
                continue
            wanted = Wanted(folded.metadata, {number: change})
            answer = await self._send(wanted)
            delay_seconds = self._judge([number], answer, wanted)
            if answer.verdict.kind is Kind.REJECTED:
                if self._ledger.is_open(number):
                    held[number] = answer
            elif self._ledger.is_open(number):
                return delay_seconds  # the later changes build on this one
            else:
                current = folded.metadata
                # The completion took another change, so the earlier rejections are the fault of the rejected changes.
                for rejected, word in held.items():
                    self._ledger.die([rejected], "rejected", error=word.verdict.error, answer=word)
                held.clear()
        return delay_seconds if held else 0.0

    async def _read(self, numbers: Collection[int]) -> tuple[Mapping[str, str], bool]:
        """Read the map to fold these changes onto.

        A read may not show a recent update yet. So the map that the service confirmed within the read lag wins.

        Returns:
            the map, and whether the read was stale.

        Raises:
            GiveBack: the read failed, and decides this try.
        """
        answer = await self._applier.calls.call(
            self._work,
            self._ledger,
            "get",
            lambda seconds: self._applier.client.get(self._completion_id, timeout_seconds=seconds),
            shown_by_read,
        )
        if answer.verdict.kind is not Kind.OK:
            raise GiveBack(Deferral.RETRY, self._judge(numbers, answer))
        if answer.metadata is None or not answer.whole:
            raise GiveBack(Deferral.RETRY, self._judge_hidden(numbers, answer))
        confirmed = self._work.claim.confirmed
        is_stale = confirmed is not None and confirmed != answer.metadata
        current = confirmed if confirmed is not None else answer.metadata
        self._ledger.before = current
        return current, is_stale

    def _send(self, wanted: Wanted) -> Awaitable[Answer]:
        self._ledger.metadata = wanted.metadata
        self._applier.tallies.changes_per_request.observe(len(wanted.changes))
        fresh = self._blame.was_not_persisted
        return self._applier.calls.call(
            self._work,
            self._ledger,
            "update",
            lambda seconds: self._applier.client.update(
                self._completion_id, wanted.metadata, timeout_seconds=seconds, fresh=fresh
            ),
            lambda answer: ending_of(answer.metadata, wanted, self._rules.semantics),
        )

    def _refuse(self, numbers: Collection[int]) -> None:
        self._ledger.die(numbers, "too_many_keys", error=_TOO_MANY_KEYS)

    def _judge(self, numbers: Collection[int], answer: Answer, wanted: Wanted | None = None) -> float:
        """Decide these changes by one answer; return the seconds until the ones left open are tried again.

        Args:
            wanted: what the update sent; None for the answer of a read.
        """
        verdict = answer.verdict
        if verdict.kind is OK:
            return self._judge_persistence(numbers, answer.metadata, wanted) if wanted else 0.0
        match verdict.kind:
            case Kind.REJECTED:
                return self._judge_rejection(numbers, certain=verdict.certain)
            case Kind.NOT_FOUND:
                return self._judge_absence(numbers, certain=verdict.about == "completion")
            case Kind.RETRY | Kind.HALTED:
                return self._judge_failure(numbers, verdict.pause_seconds)
            case Kind.THROTTLED:
                raise AssertionError(f"{verdict.kind} is not an answer that `Calls` hands on")
            case _:
                assert_never(verdict.kind)

    def _judge_persistence(self, numbers: Collection[int], shown: Mapping[str, str] | None, wanted: Wanted) -> float:
        """The service reports success: compare the metadata that it shows with the wanted one."""
        ledger = self._ledger
        ledger.verified = shown is not None
        if shown is not None and shown != wanted.metadata:
            wrong = wrong_keys(shown, wanted)
            kept = [key for key in shown if key not in wanted.metadata and key not in wrong]
            if kept and wanted.replaces:
                match self._rules.semantics:
                    case "unknown":
                        ledger.error = f"the service kept {', '.join(kept)}: does it merge? Set METASYNC_SEMANTICS"
                        self._blame.undecided(numbers)
                        return self._backoff_seconds(_LONGEST_HELD_SECONDS)
                    case "replace":
                        wrong = [*wrong, *kept]
                    case "merge":
                        ledger.leftover = len(numbers)
                    case _:
                        assert_never(self._rules.semantics)
            if wrong:
                return self._judge_not_persisted(numbers, wrong, wanted)
            ledger.leftover_keys = tuple(kept)
        ledger.confirmed = dict(wanted.metadata if shown is None else shown)
        ledger.applied(numbers)
        return 0.0

    def _judge_not_persisted(self, numbers: Collection[int], wrong: list[str], wanted: Wanted) -> float:
        """The answer may be stale, or another completion's: believe it only when a second try confirms it."""
        self._ledger.error = f"{NOT_AS_WANTED}: {', '.join(wrong)}"
        if removed := [key for key in wrong if key in wanted.removed]:
            self._ledger.error += f'; a service that merges keeps {", ".join(removed)}: set it to "" instead'
        again = self._blame.not_persisted(numbers)
        if len(again) < len(numbers):
            self._ledger.second_look = True
            lag = max(self._rules.read_lag_seconds, _SHORTEST_UNPERSISTED_SECONDS)
            return lag * self._applier.random.uniform(1.0, 1.1)
        if self._applier.flow.alike() is not None:  # other completions meet the same: these changes are not at fault
            return self._backoff_seconds(_LONGEST_HELD_SECONDS)
        responsible = wanted.responsible_for(wrong)
        self._ledger.die([number for number in numbers if number in responsible], "not_persisted")
        self._ledger.applied([number for number in numbers if number not in responsible])
        return 0.0

    def _judge_hidden(self, numbers: Collection[int], answer: Answer) -> float:
        """A read does not show all metadata: never overwrite what the worker cannot see."""
        self._ledger.error = HIDDEN if answer.metadata is None else _NOT_WHOLE
        alone = self._blame.rejected(numbers, "get")
        self._ledger.die(alone, "unreadable")
        return self._backoff_seconds(_LONGEST_HELD_SECONDS)

    def _judge_rejection(self, numbers: Collection[int], *, certain: bool) -> float:
        """The service rejects the update. The changes are at fault if it blames the metadata, or takes others since.

        Args:
            certain: the service blames the metadata.
        """
        alone = self._blame.rejected(numbers)
        if self._applier.flow.alike() is None:
            self._ledger.die(numbers if certain else alone, "rejected")
        return self._backoff_seconds(_LONGEST_HELD_SECONDS)

    def _judge_absence(self, numbers: Collection[int], *, certain: bool) -> float:
        """The completion is not visible yet, or gone: give up each change whose grace is over.

        Args:
            certain: the service names the completion as missing.
        """
        over, grace_seconds = self._blame.absent(numbers, self._ledger.operation, certain=certain)
        if self._applier.flow.alike() is None:
            self._ledger.die(over, "not_found")
        elif over:
            return _NOT_FOUND_LONGEST_SECONDS
        self._ledger.absent_seconds = grace_seconds
        if grace_seconds is None:
            return _NOT_FOUND_LONGEST_SECONDS
        delay = min(max(self._blame.absent_seconds() / 2, _NOT_FOUND_SHORTEST_SECONDS), _NOT_FOUND_LONGEST_SECONDS)
        return max(min(delay * self._applier.random.uniform(0.75, 1.25), grace_seconds), _NOT_FOUND_SHORTEST_SECONDS)

    def _judge_failure(self, numbers: Collection[int], asked_seconds: float | None = None) -> float:
        """A try failed: try again later, or give up after hours in which only these changes failed.

        Args:
            asked_seconds: the delay that the service asked for, if any.
        """
        exhausted = self._blame.exhausted(numbers)
        if exhausted:
            others = self._blame.others(self._ledger.operation)
            error = f"refused alone: {self._ledger.error}, while {others:,} others got through"
            self._ledger.die(exhausted, "attempts_exhausted", error=error)
        return max(self._backoff_seconds(), asked_seconds or 0.0)

    def _judge_fault(self, error: str) -> float:
        """An exception in the worker ended the try. If every claim meets one, the worker halts."""
        self._blame.failed_by_us()
        self._ledger.error = error
        if self._work.is_probe or not self._blame.is_guilty:
            word = Ended(End.FAILED, FAULT, error=error)
            self._applier.flow.fault(self._completion_id, word, probe=self._work.is_probe)
        return self._judge_failure(self._ledger.undecided)

    def _backoff_seconds(self, longest: float = _LONGEST_UNCOUNTED_SECONDS) -> float:
        """The backoff before the next try. It grows with each failure of the changes, over all their claims.

        Args:
            longest: its limit while the failure may hit every completion.
        """
        seconds = backoff_seconds(max(1, self._blame.failures), self._applier.policy, self._applier.random)
        return seconds if self._blame.is_guilty else min(seconds, longest)
