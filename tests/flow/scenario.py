"""Scenarios: clients with a real `Flow` each work against one simulated service, in virtual time.

Seeds 1 to 20 are for tuning constants; what is asserted of medians uses others.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
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
from tests.virtual import run
from worker.flow import FAILED, OUTAGE, Closed, End, Ended, Flow, GateEvent, Halted, Limits, Permit


@dataclass(frozen=True)
class Change:
    """Something about the service changes at a time."""

    at: float
    per_minute: float | None = None
    trouble: Trouble | None = None
    until: float = 0.0
    retry_after: float | None = None  # of a service that is unavailable


Range = tuple[float, float]


@dataclass(frozen=True)
class Scenario:
    """What is simulated; times in seconds of the virtual clock.

    Args:
        expect: ranges that hold with every seed.
        median: ranges of the median over the seeds.
        per_minute: the limit; without one, what the configured concurrency comes to.
        chance: the share of the answers that are 429 whatever the rate.
        offered_per_second: how fast work comes in; infinite work when None.
        start_age_seconds: how long ago `start_rate_per_second` was found.
    """

    name: str
    expect: dict[str, Range]
    median: dict[str, Range] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1,)
    kind: Literal["bucket", "window", "sliding", "none"] = "bucket"
    per_minute: float = 500.0
    burst_seconds: float = 1.0
    rejects_count: bool = True
    hint: Hint = "integer"
    headers: dict[str, Any] | None = None
    latency_seconds: float = 0.1
    refusal_seconds: float = 0.1
    clients: int = 1
    told_after_seconds: float | None = None  # what happens to one client, the others hear so much later
    max_concurrency: int = 64
    seconds: float = 1200.0
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
    allowed: float = 0.0
    early: int = 0  # requests that started while a Retry-After ran
    events: list[tuple[float, GateEvent]] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    limit_at: list[float] = field(default_factory=list)

    def measures(self, scenario: Scenario) -> dict[str, float]:
        """What scenarios assert ranges of.

        ``goodput`` is a share of what the limit allows over the time; it can exceed one by what a bucket had saved up
        at the start. ``wasted`` is the share of all requests that were refused.
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
    entry["seeds"] = tuple(entry.get("seeds", (1,)))
    entry["changes"] = tuple(Change(**change) for change in entry.get("changes", ()))
    entry["idle"] = tuple(entry.get("idle", (0.0, 0.0)))
    return Scenario(**entry)


def play(scenario: Scenario, seed: int = 1) -> Outcome:
    """Run the scenario; the same seed gives the same outcome."""
    return run(_Play(scenario, seed).run())


class _Play:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.random = random.Random(seed)
        self.limiter = _limiter(scenario)
        self.headers = Headers(**scenario.headers) if scenario.headers else None
        self.trouble: Change | None = None
        self._heeding = False
        self.per_minute = scenario.per_minute
        seconds = int(scenario.seconds)
        self.outcome = Outcome([0] * (seconds + 1), [0] * (seconds + 1), [0] * (seconds + 1))

    async def run(self) -> Outcome:
        try:
            async with asyncio.timeout(self.scenario.seconds), asyncio.TaskGroup() as tasks:
                tasks.create_task(self._change())
                tasks.create_task(self._record())
                for client in range(self.scenario.clients):
                    flow = self._flow(client)
                    self.outcome.flows.append(flow)
                    _Client(self, flow, client).start(tasks)
        except TimeoutError:
            pass
        return self.outcome

    def _flow(self, client: int) -> Flow:
        loop = asyncio.get_running_loop()

        def on_transition(event: GateEvent) -> None:
            self.outcome.events.append((loop.time(), event))
            age = self.scenario.told_after_seconds or 0.0
            if event.kind == "halted":
                self._tell(client, lambda other: other.others_halted(event.reason, age))
            else:
                self._tell(client, Flow.others_resumed)

        def on_refused(delay_seconds: float, ended: Ended) -> None:
            left_seconds = max(0.0, delay_seconds - (self.scenario.told_after_seconds or 0.0))
            tell = Flow.others_refused if ended.end is End.THROTTLED else Flow.others_paused
            self._tell(client, lambda other: tell(other, left_seconds))

        flow = Flow(
            max_concurrency=self.scenario.max_concurrency,
            requests_per_minute=self.scenario.requests_per_minute,
            patience_seconds=5.0,
            clock=loop.time,
            random=random.Random(self.random.random()),
            on_transition=on_transition,
            on_refused=on_refused,
        )
        flow.begin_at(self.scenario.start_rate_per_second, self.scenario.start_age_seconds)
        return flow

    def _tell(self, client: int, what: Callable[[Flow], None]) -> None:
        """Let the others hear of it, but nobody of what was only heard."""
        if self.scenario.told_after_seconds is None or self._heeding:
            return

        def tell() -> None:
            self._heeding = True
            for other, flow in enumerate(self.outcome.flows):
                if other != client:
                    what(flow)
            self._heeding = False

        asyncio.get_running_loop().call_later(self.scenario.told_after_seconds, tell)

    async def _record(self) -> None:
        while True:
            self.outcome.limit_at.append(self.per_minute / 60.0)
            await asyncio.sleep(1.0)

    async def _change(self) -> None:
        loop = asyncio.get_running_loop()
        for change in self.scenario.changes:
            await asyncio.sleep(change.at - loop.time())
            if change.per_minute:
                self.per_minute = change.per_minute
                self.limiter.set_limit(loop.time(), change.per_minute)
                if self.headers:
                    self.headers.limit *= change.per_minute / self.scenario.per_minute
            if change.trouble:
                self.trouble = change
                await asyncio.sleep(change.until - change.at)
                self.trouble = None
        await asyncio.Event().wait()


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
    """One process: appliers that never run out of work, and one flow."""

    def __init__(self, play: _Play, flow: Flow, number: int) -> None:
        self.play = play
        self.flow = flow
        self.number = number
        self.told_to_wait_until = 0.0
        self.taken = 0

    def start(self, tasks: asyncio.TaskGroup) -> None:
        for applier in range(self.play.scenario.max_concurrency):
            tasks.create_task(self._apply(applier))

    async def _apply(self, applier: int) -> None:
        loop = asyncio.get_running_loop()
        idle_from, idle_until = self.play.scenario.idle
        count = 0
        while True:
            if idle_from <= loop.time() < idle_until:
                await asyncio.sleep(idle_until - loop.time())
            if offered := self.play.scenario.offered_per_second:
                self.taken += 1
                await asyncio.sleep(max(0.0, self.taken / offered - loop.time()))
            count += 1
            completion_id = f"chatcmpl-{self.number}-{applier}-{count}"
            probe = not self.flow.is_open and self.flow.take_probe(completion_id)
            try:
                permit = await self.flow.admit(completion_id, "update", probe=probe)
                if loop.time() < self.told_to_wait_until:
                    self.play.outcome.early += 1
                await self._call(permit)
            except (Halted, Closed):
                pass
            finally:
                if probe:
                    self.flow.probe_ended()
            await self.flow.ready()

    async def _call(self, permit: Permit) -> None:
        play, scenario = self.play, self.play.scenario
        loop = asyncio.get_running_loop()
        there_seconds = scenario.refusal_seconds / 2
        await asyncio.sleep(there_seconds)
        now = loop.time()
        if play.trouble:
            play.outcome.troubled[int(now)] += 1
            await self._meet_trouble(permit, play.trouble)
            return
        if play.headers:
            play.headers.count(now)
        by_chance = scenario.chance > 0.0 and play.random.random() < scenario.chance
        if play.limiter.passes(now) and not by_chance:
            play.outcome.accepted[int(now)] += 1
            headers = play.headers.values() if play.headers else (None, None, None)
            latency_seconds = scenario.latency_seconds * play.random.uniform(0.8, 1.2)
            await asyncio.sleep(max(0.0, latency_seconds - there_seconds))
            limit, remaining, reset_seconds = headers
            permit.end(Ended(End.SUCCEEDED, limits=Limits(limit, remaining, reset_seconds)))
        else:
            play.outcome.refused[int(now)] += 1
            wait_seconds = play.limiter.wait_seconds(now)
            await asyncio.sleep(there_seconds)
            delay_seconds = hint_seconds(scenario.hint, wait_seconds, loop.time())
            if delay_seconds:
                self.told_to_wait_until = max(self.told_to_wait_until, loop.time() + delay_seconds)
            permit.end(Ended(End.THROTTLED, delay_seconds=delay_seconds))

    async def _meet_trouble(self, permit: Permit, change: Change) -> None:
        scenario = self.play.scenario
        match change.trouble:
            case "unauthorized":
                await asyncio.sleep(scenario.refusal_seconds / 2)
                permit.end(Ended(End.FAILED, "unauthorized"))
            case "unavailable":
                await asyncio.sleep(scenario.refusal_seconds / 2)
                permit.end(Ended(End.FAILED, OUTAGE, delay_seconds=change.retry_after))
            case "hang":
                await asyncio.sleep(scenario.timeout_seconds)
                permit.end(FAILED)
