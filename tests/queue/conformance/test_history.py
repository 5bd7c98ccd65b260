"""The history of the last day, on every backend."""

import pytest

from tests.queue.conformance.backends import Advance
from tests.queue.helpers import EVERY_LETTER, changes, claim, claim_one, died, finished, numbers
from worker.queue import Death, LetterCount, Sample, Settlement, Store
from worker.queue.history import KEPT_MINUTES

BUSY = Sample(pending=40, oldest_seconds=12.5, rate_per_second=8.0, limit_per_second=8.5)
IDLE = Sample(pending=0, oldest_seconds=None, rate_per_second=0.0, limit_per_second=None)


async def test_what_was_done_is_counted_by_minute_and_kind(queue: Store, advance: Advance) -> None:
    await queue.put(changes("one", range(4)))
    claimed = await claim_one(queue)
    first, second, third, fourth = numbers(claimed)
    await queue.settle(
        [Settlement(claimed, applied=[first, second], unchanged=[third], dead=[Death(fourth, "rejected", attempts=1)])]
    )
    await advance(60)
    await queue.put(changes("two", range(2)))
    await queue.settle([finished(each) for each in await claim(queue)])

    before, now = await queue.history(2)
    assert (before.applied, before.unchanged, before.dead) == (2, 1, 1)
    assert (now.applied, now.unchanged, now.dead) == (2, 0, 0)
    assert now.starts_at - before.starts_at == 60
    assert now.starts_at % 60 == 0


async def test_every_minute_is_there_whether_or_not_anything_happened(queue: Store) -> None:
    minutes = await queue.history(KEPT_MINUTES)
    starts = [minute.starts_at for minute in minutes]
    assert len(starts) == KEPT_MINUTES
    assert starts == list(range(starts[0], starts[-1] + 1, 60))
    assert {(minute.applied, minute.unchanged, minute.dead, minute.sample) for minute in minutes} == {(0, 0, 0, None)}


@pytest.mark.parametrize("minutes", [0, KEPT_MINUTES + 1])
async def test_no_more_than_what_is_kept_can_be_asked_for(queue: Store, minutes: int) -> None:
    with pytest.raises(ValueError, match="1440 minutes"):
        await queue.history(minutes)


async def test_what_is_stale_counts_for_nothing(queue: Store, advance: Advance) -> None:
    await queue.put(changes("one", range(1)))
    stale = await claim_one(queue)
    await advance(61)
    current = await claim_one(queue)
    assert await queue.settle([died(stale)]) == [died(stale)]
    await queue.settle([finished(current)])
    assert sum(minute.applied for minute in await queue.history(5)) == 1
    assert sum(minute.dead for minute in await queue.history(5)) == 0


async def test_the_last_sample_of_a_minute_counts(queue: Store, advance: Advance) -> None:
    await queue.record_sample(IDLE)
    await queue.record_sample(BUSY)
    await advance(60)
    await queue.record_sample(IDLE)
    assert [minute.sample for minute in await queue.history(3)] == [None, BUSY, IDLE]


async def test_samples_are_kept_for_a_day(queue: Store, advance: Advance) -> None:
    await queue.record_sample(BUSY)
    await advance(60 * (KEPT_MINUTES - 1))
    await queue.record_sample(IDLE)
    first, *_, last = await queue.history(KEPT_MINUTES)
    assert (first.sample, last.sample) == (BUSY, IDLE)


async def test_dead_letters_are_counted_by_reason(queue: Store) -> None:
    assert await queue.dead_reasons() == {}
    await queue.put([each for name in ("one", "two", "three") for each in changes(name, range(2))])
    one, two, three = await claim(queue)
    await queue.settle([died(one), died(two, "not_found"), died(three, "not_found")])
    assert await queue.dead_reasons() == {"rejected": LetterCount(2, 2), "not_found": LetterCount(4, 6)}
    assert await queue.dead_reasons(4) == {"rejected": LetterCount(2, 2), "not_found": LetterCount(2, 4)}
    assert await queue.dead_reasons(2) == {"rejected": LetterCount(2, 2)}
    assert await queue.dead_reasons(0) == {}
    await queue.purge_dead(EVERY_LETTER)
    assert await queue.dead_reasons() == {}
