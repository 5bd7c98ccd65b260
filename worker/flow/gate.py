"""May anything run? The circuit breaker: it halts all work where no single change is at fault."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never

import msgspec

from worker.flow.ended import ABSENT, OPERATIONS, OUTAGE, REJECTED, SUCCESS, End, Ended, Operation
from worker.flow.evidence import FAILURES_OF_EVERYBODY, TRAITS, Evidence
from worker.flow.permit import Permit

# Seconds until the second probe, and at most between two; the first goes at once. An outage ends by itself, as a rule
# soon. Any other halt lasts until a person acts.
_HALT_PROBE_SECONDS = (5.0, 300.0)
_OUTAGE_PROBE_SECONDS = (1.0, 10.0)
# After a probe that made no request of the kind that halted: until the next one, and at most, doubling.
_HANDED_ON_SECONDS = (0.25, 10.0)
_REASONS = {End.ABSENT: ABSENT, End.REJECTED: REJECTED}  # of what looks like one completion's fault, where all meet it


class GateState(StrEnum):
    """Open lets all pass, half-open one probe, halted none."""

    OPEN = "open"
    HALTED = "halted"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why all work is halted, in the words of the answer that halted it.

    Args:
        reason: for programs: ``outage``, ``unauthorized`` and so on.
        error: the service's own sentence, or the network's error; without secrets.
        completion_id: the completion whose request met it.
    """

    reason: str
    error: str | None = None
    status: int | None = None
    request_id: str | None = None
    completion_id: str | None = None

    @property
    def sentence(self) -> str:
        """The reason, and the answer's own words if there are any."""
        return f"{self.reason}: {self.error}" if self.error else self.reason


class GateEvent(msgspec.Struct, frozen=True):
    """A transition of the gate, which gives one log event.

    Args:
        kind: ``halted`` also when the reason of a halt changes; ``slowed`` when all completions meet the same.
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


class _Halt(msgspec.Struct):
    cause: Cause
    operation: Operation
    since: float
    interval_seconds: float
    probe_at: float
    failed: frozenset[str]  # the completions that met it; a probe rather takes another one
    handed_on: int = 0  # probes in a row that said nothing about the halt

    @property
    def is_lonely(self) -> bool:
        """Whether fewer have failed than usually halt: there were no other completions."""
        return len(self.failed) < FAILURES_OF_EVERYBODY


class Gate:
    """Open, halted or half-open. It reads no clock: each call is handed the time, in seconds.

    It judges each kind of call, read or update, by its own evidence. It halts where five different completions fail in
    a row, or all that there are, and none gets through between them. Then it lets one probe through at once, and after
    each failed probe a later one. A probe opens the gate when its request of the kind that halted gets through. A probe
    that makes no such request hands over to the next.
    """

    __slots__ = ("_evidence", "_halt", "_opened_at", "_probing", "_suspected", "is_cautious", "is_open")

    def __init__(self, now: float) -> None:
        # Attributes and not properties: each request asks for them several times.
        self.is_open = True
        self.is_cautious = False  # twenty completions in a row met the same, though it looks like the fault of each
        self._opened_at = now
        self._evidence: dict[Operation, Evidence] = {operation: Evidence() for operation in OPERATIONS}
        self._halt: _Halt | None = None
        self._probing = False
        self._suspected: set[str] = set()  # the reasons for which other workers are halted

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
        """0 when a probe is due or the gate is open; infinity while a probe is under way."""
        if self._halt is None:
            return 0.0
        return math.inf if self._probing else max(0.0, self._halt.probe_at - now)

    @property
    def wants_others(self) -> bool:
        """Whether too few have failed, so that a completion that comes now is tried at once."""
        return self._halt is not None and not self._probing and self._halt.is_lonely

    @property
    def is_halted_by_few(self) -> bool:
        """Whether few met the halt, and others got through before with the same kind of call."""
        return self._halt is not None and self._halt.is_lonely and self.successes(self._halt.operation) > 0

    def has_failed(self, completion_id: str) -> bool:
        """Whether this completion met the halt, so that a probe should rather take another one."""
        return self._halt is not None and completion_id in self._halt.failed

    def others_got_through(self, operation: Operation, completion_id: str, since: float, *, elsewhere: bool) -> bool:
        """Whether another completion got through since then; see `Evidence`."""
        return self._evidence[operation].others_got_through(completion_id, since, elsewhere=elsewhere)

    def successes(self, operation: Operation) -> int:
        """How many requests of this kind have got through."""
        return self._evidence[operation].successes

    def got_through_seconds_ago(self, now: float) -> dict[Operation, float]:
        """For each kind of call that ever got through: how long ago the latest such request started."""
        found = {operation: evidence.latest_at for operation, evidence in self._evidence.items()}
        return {operation: round(now - at, 1) for operation, at in found.items() if not math.isinf(at)}

    def alike(self, now: float) -> tuple[Cause, float] | None:
        """What twenty completions in a row met, though it looks like the fault of each, and for how many seconds."""
        for evidence in self._evidence.values():
            if met := evidence.alike():
                since, word = met
                return Cause(_REASONS[word.end], word.error, word.status, word.request_id), now - since
        return None

    def trait(self) -> Cause | None:
        """What some completions show of the service, too few of them to halt; a person has to look at it."""
        for evidence in self._evidence.values():
            for trait in TRAITS:
                for completion_id, (_, word) in reversed(evidence.row(trait).items()):
                    return _cause(completion_id, word)
        return None

    def take_probe(self, now: float, completion_id: str) -> bool:
        """Become half-open, if a probe is due: the work on this completion is the probe.

        Where too few have failed, a completion that has not is tried at once.
        """
        halt = self._halt
        if halt is None or self._probing:
            return False
        if now < halt.probe_at and not (halt.is_lonely and completion_id not in halt.failed):
            return False
        self._probing = True
        return True

    def probe_ended(self, now: float) -> None:
        """The work that was the probe is over. If it said nothing about the halt, the next probe is due soon."""
        if self._probing and self._halt is not None:
            self._probing = False
            shortest, longest = _HANDED_ON_SECONDS
            self._halt.probe_at = now + min(longest, shortest * 2.0**self._halt.handed_on)
            self._halt.handed_on = min(self._halt.handed_on + 1, 16)

    def ended(self, now: float, permit: Permit, ended: Ended) -> GateEvent | None:
        """Learn from the end of a request."""
        if ended.end is SUCCESS:
            return self._succeeded(now, permit)
        match ended.end:
            case End.FAILED:
                return self._failed(now, permit, ended)
            case End.ABSENT | End.REJECTED:
                self._evidence[permit.operation].met(now, permit.completion_id, ended)
                return self._judge_alike(now, permit.operation) or self._answered(now, permit)
            case End.THROTTLED:
                if permit.is_probe:  # the next is due when the delay is over
                    self._probing = False
            case End.ANSWERED:
                return self._answered(now, permit)
            case End.DROPPED:
                pass
            case _:
                assert_never(ended.end)
        return None

    def nothing_else(self, now: float, in_hand: Collection[str]) -> GateEvent | None:
        """Nothing is left to claim: halt if all completions in hand have failed in a row."""
        if self._halt is not None:
            return None
        for operation, evidence in self._evidence.items():
            if evidence.all_failed(in_hand):
                return self._close(now, operation, End.FAILED)
        return None

    def fault(self, now: float, completion_id: str, word: Ended, *, is_probe: bool) -> GateEvent | None:
        """An exception of ours ended the work on a completion: that counts as a failed update."""
        if self._halt is not None:
            return self._probe_failed(now, completion_id, word) if is_probe and self._probing else None
        is_common = self._evidence["update"].met(now, completion_id, word)
        return self._close(now, "update", End.FAILED) if is_common else None

    def told(self, reason: str, *, halted_at: float) -> None:
        """Another worker was halted: the next failure for that reason halts this one, unless it went on since."""
        if halted_at >= self._opened_at:
            self._suspected.add(reason)

    def others_got_through_elsewhere(self, operation: Operation, at: float) -> None:
        """Another worker says that something got through there at that time."""
        evidence = self._evidence[operation]
        evidence.elsewhere_at = max(evidence.elsewhere_at, at)

    def probe_now(self, now: float) -> None:
        """Another worker goes on: a probe is due here at once."""
        self._suspected.clear()
        if self._halt is not None and not self._probing:
            self._halt.probe_at = min(now, self._halt.probe_at)

    def new_key(self, now: float) -> None:
        """Another key is used from here on: what the old key met counts no more."""
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
        if self._suspected:
            self._suspected.clear()
        return self._reopen(now, permit) if self._halt else None

    def _answered(self, now: float, permit: Permit) -> GateEvent | None:
        """An answer about one completion alone opens a halt by few, as nothing else may be left that could show more.

        It proves nothing for many: a service may look a completion up and fail at the next step.
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
