"""The applier: one claim becomes, by way of one or two requests, one outcome."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from worker.api import Answer, Client, Kind, RetryPolicy, backoff_seconds
from worker.changes import MetadataChange
from worker.changes.fold import fold, needs_current
from worker.engine.calls import Calls, GiveBack, Send
from worker.engine.ledger import Ledger
from worker.engine.outcome import Left, Outcome
from worker.engine.tallies import Operation, Tallies
from worker.engine.work import Interruption, Work
from worker.queue.base import Reason

# In 14 recorded polls a fresh completion answered after 1 to 6 s: asked early, then less and less often.
_NOT_FOUND_SHORTEST_SECONDS = 1.0
_NOT_FOUND_LONGEST_SECONDS = 60.0
# A request that was cut off may still be at work in the service: recorded updates took 3.6 and 5.8 s.
_CUT_OFF_DELAY_SECONDS = 5.0

# What turns a claim into its outcome; it may be wrapped.
Apply = Callable[[Work], Awaitable[Outcome]]

_TOO_MANY_KEYS = "with this change the completion would have more than 16 pairs"


@dataclass(frozen=True, slots=True)
class Endurance:
    """When a change is given up.

    Args:
        max_attempts: failed attempts after which it is dead.
        not_found_grace_seconds: age up to which its completion may be missing.
    """

    max_attempts: int
    not_found_grace_seconds: float


class Applier:
    """Applies claims; any number of tasks may share it.

    Args:
        policy: the backoff between attempts.
        rng: the source of jitter.
        clock: the event loop's.
        tallies: count how many changes each request carries.
        logger: hears of faults of our own.
    """

    def __init__(  # noqa: PLR0917 -- its neighbours, handed over once
        self,
        client: Client,
        calls: Calls,
        endurance: Endurance,
        policy: RetryPolicy,
        rng: random.Random,
        clock: Callable[[], float],
        tallies: Tallies,
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self.client = client
        self.calls = calls
        self.endurance = endurance
        self.policy = policy
        self.rng = rng
        self.clock = clock
        self.tallies = tallies
        self.logger = logger

    async def apply(self, work: Work) -> Outcome:
        """Bring the completion in line with the claim's changes, as far as the service lets it."""
        return await _Application(self, work).run()


class _Application:
    """One claim on its way through. Methods that send return the delay after which what is left is tried again."""

    def __init__(self, applier: Applier, work: Work) -> None:
        self._applier = applier
        self._work = work
        self._ledger = Ledger(work)
        self._completion_id = work.claim.completion_id

    async def run(self) -> Outcome:
        left, delay_seconds = Left.RETRY, 0.0
        try:
            delay_seconds = await self._apply(self._ledger.decode())
        except GiveBack as given_back:
            left, delay_seconds = given_back.left, given_back.delay_seconds
        except asyncio.CancelledError:
            if not self._work.was_interrupted():
                raise
            left = Left.RELEASED
            delay_seconds = _CUT_OFF_DELAY_SECONDS if self._work.interruption is Interruption.CUT_OFF else 0.0
        except Exception as error:  # a fault of ours that one claim runs into must not stop all the others
            self._applier.logger.exception("change.crashed", completion_id=self._completion_id)
            self._work.failures += 1
            self._ledger.error = f"internal error: {type(error).__name__}"
            delay_seconds = self._judge_failure(self._ledger.undecided, "attempts_exhausted")
        return self._ledger.outcome(self._applier.clock(), kind=left, delay_seconds=delay_seconds)

    async def _apply(self, changes: Mapping[int, MetadataChange]) -> float:
        """Send all of them as one update."""
        in_order = list(changes.values())
        if not in_order:
            return 0.0
        current = None
        if needs_current(in_order):
            answer = await self._read()
            if answer.verdict.kind is not Kind.OK:
                return self._judge(changes, answer)
            current = answer.metadata
        folded = fold(current or {}, in_order)
        refused: list[int] = []
        accepted = list(changes)
        if folded.too_many_keys:
            refused = [number for position, number in enumerate(changes) if position in folded.too_many_keys]
            accepted = [number for number in changes if number not in refused]
        if not accepted or folded.metadata == current:
            self._ledger.metadata = folded.metadata
            self._refuse(refused)
            self._ledger.unchanged(accepted)
            return 0.0
        answer = await self._send(folded.metadata, changes=len(accepted))
        if answer.verdict.kind is Kind.REJECTED and len(changes) > 1:
            return await self._apply_one_by_one(changes, current)
        self._refuse(refused)
        return self._judge(accepted, answer, folded.metadata)

    async def _apply_one_by_one(
        self, changes: Mapping[int, MetadataChange], current: Mapping[str, str] | None
    ) -> float:
        """Send each of them by itself, since all together were rejected: a bad one takes no other with it.

        Args:
            current: the completion's metadata; None while it is not known.
        """
        for number, change in changes.items():
            if current is None and needs_current([change]):
                answer = await self._read()
                if answer.verdict.kind is not Kind.OK:
                    return self._judge([number], answer)
                current = answer.metadata
            folded = fold(current or {}, [change])
            if folded.too_many_keys:
                self._refuse([number])
                continue
            answer = await self._send(folded.metadata, changes=1)
            delay_seconds = self._judge([number], answer, folded.metadata)
            if answer.verdict.kind is Kind.OK:
                current = folded.metadata
            elif answer.verdict.kind is not Kind.REJECTED:
                return delay_seconds
        return 0.0

    async def _read(self) -> Answer:
        return await self._call(
            "get", lambda seconds: self._applier.client.get(self._completion_id, timeout_seconds=seconds)
        )

    async def _send(self, metadata: dict[str, str], *, changes: int) -> Answer:
        self._ledger.metadata = metadata
        self._applier.tallies.changes_per_request.observe(changes)
        return await self._call(
            "update",
            lambda seconds: self._applier.client.update(self._completion_id, metadata, timeout_seconds=seconds),
        )

    async def _call(self, operation: Operation, send: Send) -> Answer:
        attempts_left = self._applier.endurance.max_attempts - self._ledger.attempts
        answer = await self._applier.calls.call(self._work, operation, send, attempts_left=attempts_left)
        self._ledger.answered(answer)
        return answer

    def _refuse(self, numbers: Collection[int]) -> None:
        self._ledger.die(numbers, "too_many_keys", error=_TOO_MANY_KEYS)

    def _judge(self, numbers: Collection[int], answer: Answer, wanted: Mapping[str, str] | None = None) -> float:
        """Decide what one answer says about these changes; returns the delay for those that it leaves open.

        Args:
            wanted: the map that was sent; None when the answer is not an update's.
        """
        verdict = answer.verdict
        match verdict.kind:
            case Kind.OK:
                return self._judge_persistence(numbers, answer.metadata, wanted or {})
            case Kind.REJECTED:
                self._ledger.die(numbers, "not_found" if verdict.status == HTTPStatus.NOT_FOUND else "rejected")
                return 0.0
            case Kind.NOT_FOUND:
                return self._judge_absence(numbers)
            case _:
                return self._judge_failure(numbers, "attempts_exhausted", verdict.delay_seconds)

    def _judge_persistence(
        self, numbers: Collection[int], shown: Mapping[str, str] | None, wanted: Mapping[str, str]
    ) -> float:
        """The service did it, it says: compare what it shows with what was wanted."""
        ledger = self._ledger
        ledger.verified = shown is not None
        if shown is not None and shown != wanted:
            differing = [key for key, value in wanted.items() if shown.get(key) != value]
            if differing:
                self._work.failures += 1
                ledger.error = f"the service answered 200, but does not have the value of {', '.join(differing)}"
                return self._judge_failure(numbers, "not_persisted")
            ledger.leftover_keys = tuple(key for key in shown if key not in wanted)
        ledger.applied(numbers)
        return 0.0

    def _judge_absence(self, numbers: Collection[int]) -> float:
        """Not visible yet, or gone: those that have waited long enough are given up, each by its own age."""
        grace = self._applier.endurance.not_found_grace_seconds
        now = self._applier.clock()
        ages = {number: self._ledger.age_seconds(number, now) for number in numbers}
        self._ledger.die([number for number, age in ages.items() if age >= grace], "not_found")
        young = [age for age in ages.values() if age < grace]
        if not young:
            return 0.0
        delay = min(max(max(young) / 2, _NOT_FOUND_SHORTEST_SECONDS), _NOT_FOUND_LONGEST_SECONDS)
        return min(delay * self._applier.rng.uniform(0.75, 1.25), grace - max(young))

    def _judge_failure(self, numbers: Collection[int], reason: Reason, asked_seconds: float | None = None) -> float:
        """An attempt failed: later again, or never.

        Args:
            asked_seconds: the delay that the service asked for.
        """
        attempts = self._ledger.attempts
        if attempts >= self._applier.endurance.max_attempts:
            self._ledger.die(numbers, reason)
            return 0.0
        return max(backoff_seconds(attempts, self._applier.policy, self._applier.rng), asked_seconds or 0.0)
