"""May anything run? The circuit that halts all work where the fault is not a change's."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never

from worker.flow.ended import ABSENT, OPERATIONS, OUTAGE, REJECTED, End, Ended, Operation
from worker.flow.evidence import FAILURES_OF_EVERYBODY, TRAITS, Evidence
from worker.flow.permit import Permit

# Somebody has to act before a halt ends; an outage ends by itself, as a rule soon. The first probe goes at once.
_HALT_PROBE_SECONDS = (5.0, 300.0)
_OUTAGE_PROBE_SECONDS = (1.0, 10.0)
_OF_ONE = {End.ABSENT: ABSENT, End.REJECTED: REJECTED}  # words about one completion, and what they are called of all
_HANDED_ON_SECONDS = (0.25, 10.0)  # after a probe that came to no request of the kind that halted; then longer


class GateState(StrEnum):
    """Open lets all pass, half-open one probe, halted nobody."""

    OPEN = "open"
    HALTED = "halted"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why everything is halted, in the words of the answer that did it.

    Args:
        reason: for programs: ``outage``, ``unauthorized`` and so on.
        error: the service's own sentence, or what the network said; without secrets.
        completion_id: whose request met it.
    """

    reason: str
    error: str | None = None
    status: int | None = None
    request_id: str | None = None
    completion_id: str | None = None

    @property
    def sentence(self) -> str:
        """The reason, and the answer's own words where there were any."""
        return f"{self.reason}: {self.error}" if self.error else self.reason


@dataclass(frozen=True, slots=True)
class GateEvent:
    """A transition worth one log event.

    Args:
        kind: ``halted`` also when the reason of a halt changes; ``slowed`` when all meet the same refusal.
        cause: of the halt that begins or ends.
        operation: the kind of call that fails.
        next_probe_in_seconds: when a halt begins.
        halted_seconds: how long the halt lasted, when it ends.
    """

    kind: Literal["halted", "slowed", "resumed"]
    cause: Cause
    operation: Operation
    next_probe_in_seconds: float | None = None
    halted_seconds: float | None = None

    @property
    def reason(self) -> str:
        return self.cause.reason


@dataclass(slots=True)
class _Halt:
    cause: Cause
    operation: Operation
    since: float
    interval_seconds: float
    probe_at: float
    failed: frozenset[str]  # completions that no probe need take, as long as there are others
    handed_on: int = 0  # probes in a row that came to nothing

    @property
    def is_lonely(self) -> bool:
        """Whether too few have failed to say that it is no fault of theirs: there were no others."""
        return len(self.failed) < FAILURES_OF_EVERYBODY


class Gate:
    """Open, halted or half-open; it reads no clock: every call is handed the time, in seconds.

    It judges each kind of call by its own evidence. Where five different completions in a row, or all that there are,
    met a failure that may concern everybody, and none got through between them, it halts. Then one probe is let
    through at once, and after every failed one a later one. A probe whose request of the kind that halted gets through
    opens the gate; one that needs no such request hands the probe on.
    """

    __slots__ = ("_evidence", "_halt", "_opened_at", "_probing", "_suspected", "is_cautious", "is_open")

    def __init__(self, now: float) -> None:
        # Attributes, since they are asked for several times a request.
        self.is_open = True
        self.is_cautious = False  # many completions in a row met what looks like the fault of each: one at a time
        self._opened_at = now
        self._evidence: dict[Operation, Evidence] = {operation: Evidence() for operation in OPERATIONS}
        self._halt: _Halt | None = None
        self._probing = False
        self._suspected: set[str] = set()  # reasons for which other workers are halted

    @property
    def state(self) -> GateState:
        if self._halt is None:
            return GateState.OPEN
        return GateState.HALF_OPEN if self._probing else GateState.HALTED

    @property
    def cause(self) -> Cause | None:
        return self._halt.cause if self._halt else None

    def halted_seconds(self, now: float) -> float | None:
        """How long the halt has lasted; None when the gate is open."""
        return now - self._halt.since if self._halt else None

    def next_probe_in_seconds(self, now: float) -> float:
        """0 when a probe is due or the gate is open; while a probe is under way, infinity: its end will tell."""
        if self._halt is None:
            return 0.0
        return math.inf if self._probing else max(0.0, self._halt.probe_at - now)

    @property
    def wants_others(self) -> bool:
        """Whether it is halted by few, as there were no others: one that comes is welcome at any time."""
        return self._halt is not None and not self._probing and self._halt.is_lonely

    @property
    def is_halted_by_few(self) -> bool:
        """Whether those that met the halt are few, and others got through before with the same kind of call."""
        return self._halt is not None and self._halt.is_lonely and self.successes(self._halt.operation) > 0

    def has_failed(self, completion_id: str) -> bool:
        """Whether the halt was met by this completion, so that a probe should rather take another one."""
        return self._halt is not None and completion_id in self._halt.failed

    def others_got_through(self, operation: Operation, completion_id: str, since: float, *, elsewhere: bool) -> bool:
        """Whether another completion got through since then; see `Evidence`."""
        return self._evidence[operation].others_got_through(completion_id, since, elsewhere=elsewhere)

    def successes(self, operation: Operation) -> int:
        """How many requests of this kind got through so far."""
        return self._evidence[operation].successes

    def got_through_seconds_ago(self, now: float) -> dict[Operation, float]:
        """When the last request of each kind started that got through; none that never did."""
        found = {operation: evidence.latest_at for operation, evidence in self._evidence.items()}
        return {operation: round(now - at, 1) for operation, at in found.items() if not math.isinf(at)}

    def alike(self, now: float) -> tuple[Cause, float] | None:
        """What all completions meet alike, though it looks like the fault of each, and for how many seconds."""
        for evidence in self._evidence.values():
            if met := evidence.alike():
                since, word = met
                return Cause(_OF_ONE[word.end], word.error, word.status, word.request_id), now - since
        return None

    def trait(self) -> Cause | None:
        """What a completion has shown of the service that somebody has to look at, though it halts nothing as yet."""
        for evidence in self._evidence.values():
            for trait in TRAITS:
                for completion_id, (_, word) in reversed(evidence.row(trait).items()):
                    return _cause(completion_id, word)
        return None

    def take_probe(self, now: float, completion_id: str) -> bool:
        """Become half-open, if a probe is due: the work on this completion is the probe.

        Where few have failed, as there were no others, one that comes then is tried at once.
        """
        halt = self._halt
        if halt is None or self._probing:
            return False
        if now < halt.probe_at and not (halt.is_lonely and completion_id not in halt.failed):
            return False
        self._probing = True
        return True

    def probe_ended(self, now: float) -> None:
        """The work that was the probe is over: where it said nothing about the halt, another one is due soon."""
        if self._probing and self._halt is not None:
            self._probing = False
            shortest, longest = _HANDED_ON_SECONDS
            self._halt.probe_at = now + min(longest, shortest * 2.0**self._halt.handed_on)
            self._halt.handed_on = min(self._halt.handed_on + 1, 16)

    def ended(self, now: float, permit: Permit, ended: Ended) -> GateEvent | None:
        """Learn from the end of a request."""
        match ended.end:
            case End.SUCCEEDED:
                return self._succeeded(now, permit)
            case End.FAILED:
                return self._failed(now, permit, ended)
            case End.ABSENT | End.REJECTED:
                self._evidence[permit.operation].met(now, permit.completion_id, ended)
                return self._judge_alike(now, permit.operation) or self._answered(now, permit)
            case End.THROTTLED:
                if permit.is_probe:  # the next is due when everybody may send again
                    self._probing = False
            case End.ANSWERED:
                return self._answered(now, permit)
            case End.DROPPED:
                pass
            case _:
                assert_never(ended.end)
        return None

    def nothing_else(self, now: float, in_hand: Collection[str]) -> GateEvent | None:
        """There is nothing to claim, and this is all that is in hand: have all that there are failed in a row?"""
        if self._halt is not None:
            return None
        for operation, evidence in self._evidence.items():
            if evidence.all_failed(in_hand):
                return self._close(now, operation, End.FAILED)
        return None

    def fault(self, now: float, completion_id: str, word: Ended, *, is_probe: bool) -> GateEvent | None:
        """An exception of ours ended the work on a completion: where it meets all of them, nothing works."""
        if self._halt is not None:
            return self._probe_failed(now, completion_id, word) if is_probe and self._probing else None
        is_common = self._evidence["update"].met(now, completion_id, word)
        return self._close(now, "update", End.FAILED) if is_common else None

    def told(self, reason: str, *, halted_at: float) -> None:
        """Another worker was halted: here, the next failure for that reason is enough, but for what is over here."""
        if halted_at >= self._opened_at:
            self._suspected.add(reason)

    def others_got_through_elsewhere(self, operation: Operation, at: float) -> None:
        """Another worker says that something got through there at that time."""
        evidence = self._evidence[operation]
        evidence.elsewhere_at = max(evidence.elsewhere_at, at)

    def probe_now(self, now: float) -> None:
        """Elsewhere work goes on: whether it does here is worth asking at once."""
        self._suspected.clear()
        if self._halt is not None and not self._probing:
            self._halt.probe_at = min(now, self._halt.probe_at)

    def new_key(self, now: float) -> None:
        """Another key is used from here on: nothing that the one before met counts any more."""
        for evidence in self._evidence.values():
            evidence.forget()
        self.is_cautious = False
        if self._halt is not None:
            self._halt.failed = frozenset()
        self.probe_now(now)

    def _succeeded(self, now: float, permit: Permit) -> GateEvent | None:
        self._evidence[permit.operation].succeeded(permit.completion_id, permit.sent_at)
        if self.is_cautious:
            self._judge_alike(now, permit.operation)
        self._suspected.clear()
        return self._reopen(now, permit)

    def _answered(self, now: float, permit: Permit) -> GateEvent | None:
        """The service had a word about one completion alone. Where few are left, that is all that can show it is well.

        Of many, it proves nothing: a service may look a completion up, and fail at what comes then.
        """
        halt = self._halt
        if halt is None or not halt.is_lonely or halt.cause.reason in TRAITS:
            return None
        return self._reopen(now, permit)

    def _reopen(self, now: float, permit: Permit) -> GateEvent | None:
        halt = self._halt
        if halt is None or not permit.is_probe or permit.operation != halt.operation:
            return None
        self._halt, self._probing, self._opened_at, self.is_open = None, False, now, True
        return GateEvent("resumed", halt.cause, halt.operation, halted_seconds=now - halt.since)

    def _failed(self, now: float, permit: Permit, ended: Ended) -> GateEvent | None:
        if permit.is_probe and self._halt is not None:
            return self._probe_failed(now, permit.completion_id, ended)
        if ended.guilty or self._halt is not None or permit.sent_at < self._opened_at:
            return None
        is_common = self._evidence[permit.operation].met(now, permit.completion_id, ended)
        if is_common or ended.reason in self._suspected:
            return self._close(now, permit.operation, ended.reason if ended.reason in TRAITS else ended.end)
        return None

    def _probe_failed(self, now: float, completion_id: str, ended: Ended) -> GateEvent | None:
        halt = self._halt
        assert halt is not None  # noqa: S101 -- the caller has looked
        changed = ended.reason != halt.cause.reason
        shortest, longest = _OUTAGE_PROBE_SECONDS if ended.reason == OUTAGE else _HALT_PROBE_SECONDS
        halt.cause = _cause(completion_id, ended)
        halt.interval_seconds = shortest if changed else min(longest, max(shortest, 2.0 * halt.interval_seconds))
        halt.probe_at = now + halt.interval_seconds
        halt.failed |= {completion_id}
        halt.handed_on = 0
        self._probing = False
        if not changed:
            return None
        return GateEvent("halted", halt.cause, halt.operation, next_probe_in_seconds=halt.interval_seconds)

    def _judge_alike(self, now: float, operation: Operation) -> GateEvent | None:
        was_cautious, alike = self.is_cautious, self.alike(now)
        self.is_cautious = alike is not None
        return GateEvent("slowed", alike[0], operation) if alike and not was_cautious else None

    def _close(self, now: float, operation: Operation, met: str) -> GateEvent:
        """Halt for what the completions of a row met."""
        evidence = self._evidence[operation]
        row = evidence.row(met)
        completion_id, (_, word) = next(reversed(row.items()))
        if met not in TRAITS:
            del evidence.rows[met]
        cause = _cause(completion_id, word)
        self._halt = _Halt(cause, operation, now, 0.0, now, frozenset(row))
        self.is_open, self._probing = False, False
        return GateEvent("halted", cause, operation, next_probe_in_seconds=0.0)


def _cause(completion_id: str, word: Ended) -> Cause:
    return Cause(word.reason, word.error, word.status, word.request_id, completion_id)
