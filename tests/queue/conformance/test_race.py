"""Producers, consumers, crashes and late calls, all at once, on every shared backend."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.queue.helpers import change, labels
from tests.queue.stores import STORES
from worker.queue import Claim, Settlement, Store, open_queue

PRODUCERS, CONSUMERS = 4, 6
BATCHES, BATCH_SIZE = 100, 10  # of each producer
COMPLETIONS = 20
LEASE_SECONDS = 0.06
CRASHES, LATE, BY_HALVES = 0.1, 0.1, 0.3  # shares of the claims


@dataclass(slots=True)
class Race:
    """What all producers and consumers have seen.

    Args:
        valid_until: by completion, the lease that surely holds, and until when; loop time, seconds.
        done: by completion and lease, the changes that a settlement removed, as number and label.
    """

    producing: int = PRODUCERS
    valid_until: dict[str, tuple[int, float]] = field(default_factory=dict)
    done: dict[tuple[str, int], list[tuple[int, str]]] = field(default_factory=dict)
    crashes: int = 0
    stale: int = 0


async def produce(queue: Store, race: Race, name: str, dice: random.Random) -> None:
    serial = 0
    for _ in range(BATCHES):
        batch = []
        for _ in range(BATCH_SIZE):
            batch.append(change(f"c-{dice.randrange(COMPLETIONS)}", f"{name}:{serial}"))
            serial += 1
        assert (await queue.put(batch)).added == BATCH_SIZE
    race.producing -= 1


async def consume(queue: Store, race: Race, name: str, dice: random.Random) -> None:
    now = asyncio.get_running_loop().time
    while race.producing or await queue.next_due_seconds() is not None:
        asked_at = now()
        claims = await queue.claim(dice.randint(1, 4), lease_seconds=LEASE_SECONDS, owner=name)
        for claimed in claims:
            lease, until = race.valid_until.get(claimed.completion_id, (0, 0.0))
            assert claimed.lease > lease
            assert now() > until, "a lease was given out while another held"
            race.valid_until[claimed.completion_id] = (claimed.lease, asked_at + LEASE_SECONDS)
        if not claims:
            await queue.wait_for_work(0.01)
        elif dice.random() < CRASHES:
            race.crashes += 1
        else:
            if dice.random() < LATE:
                await asyncio.sleep(2 * LEASE_SECONDS)
            await settle(queue, race, claims, dice)


async def settle(queue: Store, race: Race, claims: list[Claim], dice: random.Random) -> None:
    settlements = []
    for claimed in claims:
        if race.valid_until[claimed.completion_id][0] == claimed.lease:
            race.valid_until[claimed.completion_id] = (claimed.lease, 0.0)  # it may end at any time from here on
        numbers = [each.number for each in claimed.changes]
        some = numbers[: dice.randint(0, len(numbers))] if dice.random() < BY_HALVES else numbers
        settlements.append(Settlement(claimed, applied=some))
    stale = await queue.settle(settlements)
    race.stale += len(stale)
    for settlement in settlements:
        if settlement not in stale:
            claimed = settlement.claim
            changes = zip((each.number for each in claimed.changes), labels(claimed), strict=True)
            done = [(number, label) for number, label in changes if number in settlement.applied]
            assert (claimed.completion_id, claimed.lease) not in race.done
            race.done[claimed.completion_id, claimed.lease] = done


@pytest.mark.parametrize("store", sorted(STORES))
async def test_nothing_is_lost_or_out_of_order_and_no_two_leases_hold_at_once(store: str, tmp_path: Path) -> None:
    race = Race()
    async with STORES[store](tmp_path) as url:
        async with asyncio.TaskGroup() as group:
            for role, count in ((produce, PRODUCERS), (consume, CONSUMERS)):
                for i in range(count):
                    group.create_task(_take_part(url, role, race, f"{role.__name__}-{i}", random.Random(i)))
        async with open_queue(url) as queue:
            status = await queue.status()

    assert (status.pending, status.dead) == (0, 0)
    assert race.crashes
    assert race.stale
    by_completion: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (completion_id, _), done in sorted(race.done.items()):  # leases are numbered in the order of the claims
        by_completion[completion_id] += done
    everything = Counter(label for done in by_completion.values() for _, label in done)
    assert everything == Counter(f"produce-{i}:{n}" for i in range(PRODUCERS) for n in range(BATCHES * BATCH_SIZE))
    for done in by_completion.values():
        numbers = [number for number, _ in done]
        assert numbers == sorted(numbers)
        for i in range(PRODUCERS):
            serials = [int(label.partition(":")[2]) for _, label in done if label.startswith(f"produce-{i}:")]
            assert serials == sorted(serials)


async def _take_part(
    url: str,
    role: Callable[[Store, Race, str, random.Random], Coroutine[Any, Any, None]],
    race: Race,
    name: str,
    dice: random.Random,
) -> None:
    async with open_queue(url, timeout_seconds=60) as queue:
        await role(queue, race, name, dice)
