"""The requests that folding saves, by load: changes that wait together for one completion become one request.

Simulated with the queue in memory and the real fold, on its own clock: `python -m benchmarks.coalescing`.
"""

import argparse
import asyncio
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.report import insert
from worker.changes import MetadataChange
from worker.changes.fold import fold
from worker.queue import Settlement
from worker.queue.memory import MemoryQueue

LOADS = (0.5, 0.9, 1.1, 1.5, 2.0, 3.0, 5.0)
PER_COMPLETION = (1, 3, 10)
LIMIT_PER_SECOND = 2
GAP_SECONDS = 60.0
HORIZON_SECONDS, WARM_UP_SECONDS = 3_000, 1_000
_SEED = 7


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load.

    Args:
        changes, requests: done after the warm-up.
        behind: changes pending at the end, in seconds of incoming changes.
    """

    changes: int
    requests: int
    behind: float

    @property
    def saved(self) -> float:
        """The share of requests that folding saved."""
        return 1.0 - self.requests / self.changes if self.changes else 0.0


async def simulate(load: float, per_completion: int) -> Outcome:
    """Offer `load` times as many changes as the service takes requests.

    Each completion gets so many changes, the gaps between them exponential with a mean of a minute; each second, as
    many completions are claimed as the service takes requests.
    """
    dice = random.Random(_SEED)  # noqa: S311 -- no secret
    now = 0.0
    arrivals: list[tuple[float, int, int]] = []
    births_per_second = load * LIMIT_PER_SECOND / per_completion
    at, number = 0.0, 0
    while at < HORIZON_SECONDS:
        at += dice.expovariate(births_per_second)
        number += 1
        moment = at
        for change in range(per_completion):
            heapq.heappush(arrivals, (moment, number, change))
            moment += dice.expovariate(1 / GAP_SECONDS)
    done = requests = 0
    async with MemoryQueue(clock=lambda: now) as queue:
        for second in range(HORIZON_SECONDS):
            now = float(second)
            coming = []
            while arrivals and arrivals[0][0] <= now:
                _, completion, change = heapq.heappop(arrivals)
                coming.append(MetadataChange(f"chatcmpl-{completion}", {"label": str(change)}, "replace"))
            await queue.put(coming)
            claims = await queue.claim(LIMIT_PER_SECOND, lease_seconds=60.0, owner="simulation")
            for claim in claims:
                wanted = [
                    MetadataChange(each.completion_id, msgspec.json.decode(each.metadata), "replace")
                    for each in claim.changes
                ]
                newest = fold({}, wanted)  # one map, with anything before it
                if newest.metadata != wanted[-1].metadata:
                    raise SystemExit("the fold lost a change")
            await queue.settle([Settlement(each, applied=[one.number for one in each.changes]) for each in claims])
            if second >= WARM_UP_SECONDS:
                done += sum(len(claim.changes) for claim in claims)
                requests += len(claims)
        pending = (await queue.status()).pending
    return Outcome(done, requests, pending / (load * LIMIT_PER_SECOND))


def table(outcomes: Sequence[Sequence[Outcome]]) -> str:
    """The saved requests, by load, and by the number of changes of a completion."""
    kinds = " | ".join(f"{each} a completion: saved | behind" for each in PER_COMPLETION)
    lines = [f"| changes offered / requests the service takes | {kinds} |", f"|---|{'---:|' * 2 * len(PER_COMPLETION)}"]
    for load, row in zip(LOADS, outcomes, strict=True):
        shown = " | ".join(f"{each.saved:.0%} | {_behind(each)}" for each in row)
        lines.append(f"| {load:g} | {shown} |")
    return "\n".join(lines)


def _behind(outcome: Outcome) -> str:
    seconds = outcome.behind
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


async def _all() -> list[list[Outcome]]:
    return [[await simulate(load, each) for each in PER_COMPLETION] for load in LOADS]


def main() -> None:
    """Simulate every load, print the table, and keep it in docs/scale.md on request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coalescing", description=__doc__)
    parser.add_argument("--docs", type=Path, help="the page to write the table into")
    arguments = parser.parse_args()
    text = table(asyncio.run(_all()))
    print(text)
    if arguments.docs:
        insert(arguments.docs, "coalescing", text)


if __name__ == "__main__":
    main()
