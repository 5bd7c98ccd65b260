"""Scenarios: clients with a real `Flow` each work against one simulated service, in simulated time.

A queue of events drives them instead of an event loop, which costs a tenth: `Flow` itself never waits. Other tests
cover the waiting line.

Seeds 1 to 20 are for tuning constants. Assertions of medians use others.
"""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.flow.service import (
    BucketLimiter,
    Headers,
    Hint,
    Limiter,
    NoLimiter,
    SlidingLimiter,
    Trouble,
    WindowLimiter,
    hint_seconds,
)
from worker.flow import FAILED, OUTAGE, End, Ended, Flow, GateEvent, Limits, Permit

_SEEN_SECONDS = 0.2  # until workers that start at once have seen each other


@dataclass(frozen=True)
class Change:
    """A change of the service at a time."""

    at: float
    per_minute: float | None = None
    trouble: Trouble | None = None
    until: float = 0.0
    retry_after: float | None = None  # of a service that is unavailable


Range = tuple[float, float]


@dataclass(frozen=True)
class Scenario:
    """A scenario; times in seconds of the virtual clock.

    Args:
        expect: ranges for every seed.
        median: ranges for the median over the seeds.
        per_minute: the limit; without one, the configured concurrency is the limit.
        chance: the share of answers that are 429 at any rate.
        offered_per_second: how fast work comes in; None for infinite work.
        start_age_seconds: how long ago `start_rate_per_second` was found.
    """

    name: str
    expect: dict[str, Range]
    median: dict[str, Range] = field(default_factory=dict)
    seeds: tuple[int, ...] = (201, 202, 203, 204, 205)
    kind: Literal["bucket", "window", "sliding", "none"] = "bucket"
    per_minute: float = 500.0
    burst_seconds: float = 1.0
    rejects_count: bool = True
    hint: Hint = "integer"
    headers: dict[str, Any] | None = None
    latency_seconds: float = 0.1
    refusal_seconds: float = 0.1
    clients: int = 1
    told_after_seconds: float | None = None  # other clients learn of a client's events so much later
    max_concurrency: int = 64
    seconds: float = 600.0
    idle: tuple[float, float] = (0.0, 0.0)
    changes: tuple[Change, ...] = ()
    requests_per_minute: float | None = None
    start_rate_per_second: float | None = None
    start_age_seconds: float = 0.0
    chance: float = 0.0
    offered_per_second: float | None = None
    timeout_seconds: float = 60.0


@dataclass
class Outcome:
    """What happened, by whole second of the request's arrival at the service."""

    accepted: list[int]
    refused: list[int]
    troubled: list[int]
    early: int = 0  # requests that started while a Retry-After ran
    events: list[tuple[float, GateEvent]] = field(default_factory=list)
    limit_at: list[float] = field(default_factory=list)
    aim_at: list[float] = field(default_factory=list)  # of all clients, a second each

    def measures(self, scenario: Scenario) -> dict[str, float]:
        """The figures that scenarios assert.

        ``goodput`` is the share of the limit that was used over the time. It can exceed one by the burst that a bucket
        allows at the start. ``wasted`` is the share of all requests that were refused.
        """
        sent = sum(self.accepted) + sum(self.refused) + sum(self.troubled)
        measured = {
            "goodput": sum(self.accepted) / sum(self.limit_at),
            "wasted": sum(self.refused) / max(1, sent),
            "early": self.early,
            "troubled": sum(self.troubled),
            "halts": sum(event.kind == "halted" for _, event in self.events),
            "resumes": sum(event.kind == "resumed" for _, event in self.events),
        }
        for seconds in (30, 60, 180):
            if scenario.seconds >= seconds:
                measured[f"g{seconds}"] = sum(self.accepted[:seconds]) / sum(self.limit_at[:seconds])
        measured["wasted_60s"] = self._wasted(0, 60)
        measured["t90"] = self._t90()
        if scenario.offered_per_second:
            measured["share"] = sum(self.accepted) / (scenario.offered_per_second * scenario.seconds)
        if scenario.changes:
            at = int(scenario.changes[-1].until or scenario.changes[-1].at)
            measured["wasted_5s_after_change"] = self._wasted(at + 5, at + 15)
            measured["seconds_to_90_percent"] = self._seconds_to_90_percent(at)
        if scenario.idle[1]:
            at = int(scenario.idle[1])
            measured["wasted_10s_after_idle"] = self._wasted(at, at + 10)
            measured["goodput_10s_after_idle"] = sum(self.accepted[at : at + 10]) / sum(self.limit_at[at : at + 10])
        return measured

    def _wasted(self, start: int, end: int) -> float:
        refused = sum(self.refused[start:end])
        return refused / max(1, refused + sum(self.accepted[start:end]))

    def _t90(self) -> float:
        """The first second from which ten seconds together reach 90 % of the limit."""
        for second in range(len(self.limit_at) - 9):
            span = slice(second, second + 10)
            if sum(self.accepted[span]) >= 0.9 * sum(self.limit_at[span]):
                return second
        return float("inf")

    def _seconds_to_90_percent(self, at: int) -> float:
        """Until the mean over five seconds first reaches 90 % of the limit then in force."""
        for second in range(at, len(self.accepted) - 4):
            span = slice(second, second + 5)
            if sum(self.accepted[span]) >= 0.9 * sum(self.limit_at[span]):
                return second - at
        return float("inf")


def load(path: Path) -> list[Scenario]:
    """The scenarios of a file, each on top of the file's ``defaults``."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [_scenario({**document.get("defaults", {}), **entry}) for entry in document["scenarios"]]


def _scenario(entry: dict[str, Any]) -> Scenario:
    entry = dict(entry)
    for ranges in ("expect", "median"):
        entry[ranges] = {measure: (low, high) for measure, (low, high) in entry.get(ranges, {}).items()}
    if "seeds" in entry:
        entry["seeds"] = tuple(entry["seeds"])
    entry["changes"] = tuple(Change(**change) for change in entry.get("changes", ()))
    entry["idle"] = tuple(entry.get("idle", (0.0, 0.0)))
    return Scenario(**entry)


def play(scenario: Scenario, seed: int = 1) -> Outcome:
    """Run the scenario; the same seed gives the same outcome."""
    return _Play(scenario, seed).run()


class _Play:
    """The service, the time, and the events to come."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.random = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self.limiter = _limiter(scenario)
        self.headers = Headers(**scenario.headers) if scenario.headers else None
        self.trouble: Change | None = None
        self.per_minute = scenario.per_minute
        seconds = int(scenario.seconds)
        self.outcome = Outcome([0] * (seconds + 1), [0] * (seconds + 1), [0] * (seconds + 1))
        self.clients = [_Client(self) for _ in range(scenario.clients)]
        if scenario.told_after_seconds is not None:
            for client in self.clients:
                self.at(_SEEN_SECONDS, client.flow.others_at_work, scenario.clients - 1)

    def at(self, when: float, do: Callable[..., None], *args: Any) -> None:
        heappush(self._events, (when, next(self._numbers), do, args))

    def run(self) -> Outcome:
        for client in self.clients:
            self.at(0.0, client.move)
        for change in self.scenario.changes:
            self.at(change.at, self._change, change)
        self.at(0.0, self._record)
        while self._events[0][0] < self.scenario.seconds:
            self.now, _, do, args = heappop(self._events)
            do(*args)
        return self.outcome

    def tell(self, teller: "_Client", what: Callable[[Flow], None]) -> None:
        """Tell the other clients after a while."""
        if self.scenario.told_after_seconds is not None:
            self.at(self.now + self.scenario.told_after_seconds, self._heed, teller, what)

    def _heed(self, teller: "_Client", what: Callable[[Flow], None]) -> None:
        for client in self.clients:
            if client is not teller:
                what(client.flow)
                client.move()

    def _record(self) -> None:
        self.outcome.limit_at.append(self.per_minute / 60.0)
        self.outcome.aim_at.append(sum(client.flow.snapshot().rate_per_second for client in self.clients))
        self.at(self.now + 1.0, self._record)

    def _change(self, change: Change) -> None:
        if change.per_minute:
            self.per_minute = change.per_minute
            self.limiter.set_limit(self.now, change.per_minute)
            if self.headers:
                self.headers.limit *= change.per_minute / self.scenario.per_minute
        if change.trouble:
            self.trouble = change
            self.at(change.until, self._recover)

    def _recover(self) -> None:
        self.trouble = None


def _limiter(scenario: Scenario) -> Limiter:
    match scenario.kind:
        case "bucket":
            return BucketLimiter(scenario.per_minute, scenario.burst_seconds, scenario.rejects_count)
        case "window":
            return WindowLimiter(scenario.per_minute)
        case "sliding":
            return SlidingLimiter(scenario.per_minute, scenario.rejects_count)
        case "none":
            return NoLimiter(scenario.per_minute)


class _Client:
    """One process, with work for all its slots."""

    def __init__(self, play: _Play) -> None:
        self.play = play
        self._told_to_wait_until = 0.0
        self._started = 0
        self._timer_at = math.inf
        self.flow = Flow(
            max_concurrency=play.scenario.max_concurrency,
            requests_per_minute=play.scenario.requests_per_minute,
            patience_seconds=5.0,
            clock=lambda: play.now,
            random=random.Random(play.random.random()),
            on_transition=self._on_transition,
            on_refused=self._on_refused,
        )
        self.flow.begin_at(play.scenario.start_rate_per_second, play.scenario.start_age_seconds)

    def move(self) -> None:
        """Start as much as is allowed, and come back when more is."""
        now, flow = self.play.now, self.flow
        if self._timer_at <= now:
            self._timer_at = math.inf
        wait_seconds = self._work_seconds(now)
        while wait_seconds <= 0.0:
            completion_id = f"c{self._started}"
            permit = flow.start(completion_id, "update")
            if permit is None and not flow.gate.is_open and flow.take_probe(completion_id):
                permit = flow.start_probe(completion_id, "update")
            if permit is None:
                wait_seconds = flow.wait_seconds() if flow.gate.is_open else flow.next_probe_in_seconds()
                break
            self._send(permit)
            wait_seconds = self._work_seconds(now)
        at = now + max(wait_seconds, 0.001)
        if at < self._timer_at:
            self._timer_at = at
            self.play.at(at, self.move)

    def _work_seconds(self, now: float) -> float:
        """The time until something can start."""
        scenario = self.play.scenario
        if self.flow.in_flight >= scenario.max_concurrency:
            return math.inf
        idle_from, idle_until = scenario.idle
        if idle_from <= now < idle_until:
            return idle_until - now
        if scenario.offered_per_second:
            return (self._started + 1) / scenario.offered_per_second - now
        return 0.0

    def _send(self, permit: Permit) -> None:
        play = self.play
        self._started += 1
        if play.now < self._told_to_wait_until:
            play.outcome.early += 1
        play.at(play.now + play.scenario.refusal_seconds / 2, self._arrive, permit)

    def _arrive(self, permit: Permit) -> None:
        play, scenario, now = self.play, self.play.scenario, self.play.now
        back_seconds = scenario.refusal_seconds / 2
        if play.trouble:
            play.outcome.troubled[int(now)] += 1
            ended, seconds = self._troubled(play.trouble)
            play.at(now + seconds, self._end, permit, ended)
            return
        if play.headers:
            play.headers.count(now)
        by_chance = scenario.chance > 0.0 and play.random.random() < scenario.chance
        if play.limiter.passes(now) and not by_chance:
            play.outcome.accepted[int(now)] += 1
            limits = Limits(*play.headers.values()) if play.headers else None
            latency_seconds = scenario.latency_seconds * play.random.uniform(0.8, 1.2)
            at = now + max(0.0, latency_seconds - back_seconds)
            play.at(at, self._end, permit, Ended(End.SUCCEEDED, limits=limits))
        else:
            play.outcome.refused[int(now)] += 1
            play.at(now + back_seconds, self._refuse, permit, play.limiter.wait_seconds(now))

    def _troubled(self, change: Change) -> tuple[Ended, float]:
        """The end of a request, and after how many seconds."""
        scenario = self.play.scenario
        match change.trouble:
            case "unauthorized":
                return Ended(End.FAILED, "unauthorized"), scenario.refusal_seconds / 2
            case "unavailable":
                return Ended(End.FAILED, OUTAGE, delay_seconds=change.retry_after), scenario.refusal_seconds / 2
            case _:
                return FAILED, scenario.timeout_seconds

    def _refuse(self, permit: Permit, wait_seconds: float) -> None:
        now = self.play.now
        delay_seconds = hint_seconds(self.play.scenario.hint, wait_seconds, now)
        if delay_seconds:
            self._told_to_wait_until = max(self._told_to_wait_until, now + delay_seconds)
        self._end(permit, Ended(End.THROTTLED, delay_seconds=delay_seconds))

    def _end(self, permit: Permit, ended: Ended) -> None:
        permit.end(ended)
        if permit.is_probe:
            self.flow.probe_ended()
        self.move()

    def _on_transition(self, event: GateEvent) -> None:
        play = self.play
        play.outcome.events.append((play.now, event))
        age_seconds = play.scenario.told_after_seconds or 0.0
        if event.kind == "halted":
            play.tell(self, lambda flow: flow.others_halted(event.reason, age_seconds))
        else:
            play.tell(self, Flow.others_resumed)

    def _on_refused(self, delay_seconds: float, ended: Ended) -> None:
        left_seconds = max(0.0, delay_seconds - (self.play.scenario.told_after_seconds or 0.0))
        tell = Flow.others_refused if ended.end is End.THROTTLED else Flow.others_paused
        self.play.tell(self, lambda flow: tell(flow, left_seconds))
