"""May anything run? The circuit that halts all work where the fault is not a change's."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

OUTAGE = "outage"
_FAILURES_OF_AN_OUTAGE = 5

# Somebody has to act before a halt ends; an outage ends by itself, as a rule soon.
_HALT_PROBE_SECONDS = (5.0, 300.0)
_OUTAGE_PROBE_SECONDS = (1.0, 60.0)


class GateState(StrEnum):
    """Open lets all pass, half-open one probe, halted nobody."""

    OPEN = "open"
    HALTED = "halted"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class GateEvent:
    """A transition worth one log event.

    Args:
        kind: ``halted`` also when the reason of a halt changes.
        reason: of the halt that begins or ends.
        next_probe_in_seconds: when a halt begins.
        halted_seconds: how long the halt lasted, when it ends.
    """

    kind: Literal["halted", "resumed"]
    reason: str
    next_probe_in_seconds: float | None = None
    halted_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Halt:
    reason: str
    since: float
    interval_seconds: float
    probe_at: float


class Gate:
    """Open, halted or half-open; it reads no clock: every call is handed the time, in seconds.

    Five failures in a row, of different completions, halt it as an outage; `halt` halts it at once. Then one probe
    is let through after five seconds (outage: one second), and after every failed one twice as late, up to five
    minutes (outage: one). A probe that succeeds opens the gate; no other answer does. Words about requests that
    started before the gate last opened are ignored: they are about the trouble that has passed.
    """

    __slots__ = ("_failed", "_halt", "_opened_at", "_probing", "is_open")

    def __init__(self, now: float) -> None:
        self.is_open = True  # an attribute, since it is asked for several times a request
        self._opened_at = now
        self._halt: _Halt | None = None
        self._probing = False
        self._failed: set[str] = set()

    @property
    def state(self) -> GateState:
        if self._halt is None:
            return GateState.OPEN
        return GateState.HALF_OPEN if self._probing else GateState.HALTED

    @property
    def reason(self) -> str | None:
        return self._halt.reason if self._halt else None

    @property
    def halted_since(self) -> float | None:
        return self._halt.since if self._halt else None

    def next_probe_in_seconds(self, now: float) -> float:
        """0 when a probe is due or the gate is open; while a probe is under way, infinity: its end will tell."""
        if self._halt is None:
            return 0.0
        return math.inf if self._probing else max(0.0, self._halt.probe_at - now)

    def retry_in_seconds(self, now: float) -> float:
        """When it is worth asking again: the next probe, or the one after the probe that is under way."""
        if self._halt is None:
            return 0.0
        return self._halt.interval_seconds if self._probing else max(0.0, self._halt.probe_at - now)

    def take_probe(self, now: float) -> bool:
        """Become half-open, if a probe is due: the caller's request is the probe, and must end as one."""
        if self._halt is None or self._probing or now < self._halt.probe_at:
            return False
        self._probing = True
        return True

    def succeeded(self, now: float, *, probe: bool) -> GateEvent | None:
        """The service answered and is not to blame: opens the gate if this was the probe."""
        self._failed.clear()
        if not probe or self._halt is None:
            return None
        ended, self._halt, self._probing, self._opened_at = self._halt, None, False, now
        self.is_open = True
        return GateEvent("resumed", ended.reason, halted_seconds=now - ended.since)

    def failed(self, now: float, completion_id: str, *, sent_at: float, probe: bool) -> GateEvent | None:
        """No answer, a cut one, or a 5xx."""
        if probe:
            self._probe_failed(now)
            return None
        if self._halt is not None or sent_at < self._opened_at:
            return None
        self._failed.add(completion_id)
        if len(self._failed) < _FAILURES_OF_AN_OUTAGE:
            return None
        return self._close(now, OUTAGE)

    def halt(self, now: float, reason: str, *, sent_at: float, probe: bool) -> GateEvent | None:
        """The service refuses everybody: a bad key, an exhausted quota, a wrong URL."""
        if probe and self._halt is not None:
            if self._halt.reason == reason:
                self._probe_failed(now)
                return None
            return self._close(now, reason, since=self._halt.since)
        if self._halt is not None or sent_at < self._opened_at:
            return None
        return self._close(now, reason)

    def probe_now(self, now: float) -> None:
        """Elsewhere work goes on: whether it does here is worth asking at once."""
        if self._halt is not None and not self._probing:
            self._halt = _Halt(self._halt.reason, self._halt.since, self._halt.interval_seconds, now)

    def throttled(self, now: float, delay_seconds: float, *, probe: bool) -> None:
        """The service is there, but says too fast: of a probe, no answer to the question; it is asked again later."""
        if probe and self._halt is not None:
            wait_seconds = max(self._halt.interval_seconds, delay_seconds)
            self._halt = _Halt(self._halt.reason, self._halt.since, self._halt.interval_seconds, now + wait_seconds)
            self._probing = False
        self._failed.clear()

    def dropped(self, *, probe: bool) -> None:
        """The request was cancelled: if it was the probe, another one is due."""
        if probe:
            self._probing = False

    def _probe_failed(self, now: float) -> None:
        if self._halt is not None:
            interval_seconds = min(2.0 * self._halt.interval_seconds, _probe_seconds(self._halt.reason)[1])
            self._halt = _Halt(self._halt.reason, self._halt.since, interval_seconds, now + interval_seconds)
            self._probing = False

    def _close(self, now: float, reason: str, *, since: float | None = None) -> GateEvent:
        first_probe_seconds = _probe_seconds(reason)[0]
        self._halt = _Halt(reason, now if since is None else since, first_probe_seconds, now + first_probe_seconds)
        self.is_open = False
        self._probing = False
        self._failed.clear()
        return GateEvent("halted", reason, next_probe_in_seconds=first_probe_seconds)


def _probe_seconds(reason: str) -> tuple[float, float]:
    return _OUTAGE_PROBE_SECONDS if reason == OUTAGE else _HALT_PROBE_SECONDS
