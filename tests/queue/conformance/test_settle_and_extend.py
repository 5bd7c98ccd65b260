"""The end of a lease, and late workers, on every backend."""

import asyncio

import pytest

from tests.queue.conformance.backends import Advance
from tests.queue.helpers import (
    EVERY_LETTER,
    LEASE_SECONDS,
    Ending,
    Event,
    about,
    bury,
    change,
    changes,
    claim,
    claim_one,
    died,
    finished,
    labels,
    letters,
    numbers,
    trials_of,
)
from worker.queue import MAX_CHANGES_PER_CLAIM, Death, Settlement, Store

ENDINGS: list[Ending] = [finished, died, lambda claimed: Settlement(claimed, unchanged=numbers(claimed)), Settlement]


async def test_nothing_to_settle_or_extend_is_nothing_stale_or_lost(queue: Store) -> None:
    assert await queue.settle([]) == []
    assert await queue.extend([], lease_seconds=LEASE_SECONDS) == []


async def test_a_finished_target_goes(queue: Store, advance: Advance) -> None:
    await queue.put(changes("c-1", "ab"))
    claimed = await claim_one(queue)
    first, second = numbers(claimed)

    assert await queue.settle([Settlement(claimed, applied=[first], unchanged=[second])]) == []
    assert await queue.next_due_seconds() is None
    await advance(LEASE_SECONDS)
    assert await claim(queue) == []


async def test_what_is_neither_done_nor_dead_stays_in_order(queue: Store) -> None:
    await queue.put(changes("c-1", "abcd"))
    claimed = await claim_one(queue)
    _, second, third, _ = numbers(claimed)

    await queue.settle([Settlement(claimed, applied=[third], dead=[Death(second, "rejected", 1)])])

    assert labels(await claim_one(queue)) == ["a", "d"]


async def test_a_released_claim_is_due_at_once(queue: Store) -> None:
    await queue.put([change("c-1")])
    await queue.settle([Settlement(await claim_one(queue))])

    assert await queue.next_due_seconds() == about(0)
    assert labels(await claim_one(queue)) == ["x"]


async def test_what_is_left_is_due_after_the_delay(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    await queue.settle([Settlement(await claim_one(queue), delay_seconds=30)])

    await advance(29)
    assert await claim(queue) == []
    await advance(1)
    assert len(await claim(queue)) == 1


async def test_a_new_change_does_not_cut_a_delay_short(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1", "a")])
    await queue.settle([Settlement(await claim_one(queue), delay_seconds=30)])
    await queue.put([change("c-1", "b")])

    assert await claim(queue) == []
    await advance(30)
    assert labels(await claim_one(queue)) == ["a", "b"]


async def test_trials_stay_with_the_changes_that_they_are_about_until_there_are_newer_ones(queue: Store) -> None:
    await queue.put(changes("c-1", "abcd"))
    claimed = await claim_one(queue)
    first, second, third, _ = numbers(claimed)
    await queue.settle([Settlement(claimed, applied=[first], trials=[(third, "once"), (second, '{"failed": 1}')])])
    claimed = await claim_one(queue)
    seen = [trials_of(claimed)]
    await queue.settle([Settlement(claimed)])
    claimed = await claim_one(queue)
    seen.append(trials_of(claimed))
    await queue.settle([Settlement(claimed, applied=[second], trials=[(third, "twice")])])
    seen.append(trials_of(await claim_one(queue)))

    assert seen == [
        {"b": '{"failed": 1}', "c": "once", "d": None},
        {"b": '{"failed": 1}', "c": "once", "d": None},
        {"c": "twice", "d": None},
    ]


async def test_trials_are_those_of_one_change_and_not_of_what_comes_after_it(queue: Store) -> None:
    await queue.put([change("c-1", "old"), change("c-2", "other")])
    first, second = await claim(queue)
    await queue.put([change("c-1", "new")])
    await queue.settle([Settlement(first, trials=[(numbers(first)[0], "failed")]), Settlement(second)])

    seen = {claimed.completion_id: trials_of(claimed) for claimed in await claim(queue)}
    assert seen == {"c-1": {"old": "failed", "new": None}, "c-2": {"other": None}}


async def test_a_stale_settlement_keeps_no_trials(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    slow = await claim_one(queue)
    await advance(LEASE_SECONDS)
    await queue.settle([Settlement(await claim_one(queue))])

    late = Settlement(slow, trials=[(numbers(slow)[0], "late")])
    assert await queue.settle([late]) == [late]
    assert trials_of(await claim_one(queue)) == {"x": None}


async def test_a_change_that_comes_during_a_claim_is_due_once_the_claim_is_finished(queue: Store) -> None:
    await queue.put([change("c-1", "old")])
    claimed = await claim_one(queue)
    await queue.put([change("c-1", "new")])
    assert await claim(queue) == []  # one writer per completion

    assert await queue.settle([finished(claimed)]) == []

    assert labels(await claim_one(queue)) == ["new"]


async def test_what_a_claim_could_not_carry_is_due_once_it_is_finished(queue: Store) -> None:
    await queue.put(changes("c-1", range(MAX_CHANGES_PER_CLAIM + 1)))
    await queue.settle([died(await claim_one(queue))])

    assert labels(await claim_one(queue)) == [str(MAX_CHANGES_PER_CLAIM)]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_worker_whose_lease_went_to_another_changes_nothing(
    queue: Store, advance: Advance, ending: Ending
) -> None:
    await queue.put([change("c-1")])
    slow = await claim_one(queue)
    await advance(LEASE_SECONDS)
    current = await claim_one(queue)
    late = ending(slow)

    assert await queue.settle([late]) == [late]
    assert await queue.extend([current], lease_seconds=LEASE_SECONDS) == []
    assert (await queue.status()).pending == 1
    assert await letters(queue) == []
    assert await queue.settle([finished(current)]) == []


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_settled_claim_is_over(queue: Store, ending: Ending) -> None:
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    await queue.settle([Settlement(claimed, delay_seconds=5)])
    again = ending(claimed)

    assert await queue.settle([again]) == [again]
    assert await queue.next_due_seconds() == about(5)


async def test_a_claim_of_a_target_that_went_and_came_back_is_stale(queue: Store) -> None:
    await queue.put([change("c-1", "a")])
    gone = await claim_one(queue)
    await queue.settle([finished(gone)])
    await queue.put([change("c-1", "b")])

    assert await queue.settle([finished(gone)]) == [finished(gone)]
    assert await queue.extend([gone], lease_seconds=LEASE_SECONDS) == [gone]
    assert labels(await claim_one(queue)) == ["b"]


async def test_of_several_settlements_of_one_claim_the_first_counts(queue: Store) -> None:
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    first, second = Settlement(claimed, trials=[(numbers(claimed)[0], "first")]), finished(claimed)

    assert await queue.settle([first, second]) == [second]
    assert trials_of(await claim_one(queue)) == {"x": "first"}


async def test_stale_and_valid_settlements_may_come_together(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2")])
    old = await claim(queue)
    await advance(LEASE_SECONDS)
    [new] = await claim(queue, 1)
    other = next(claimed for claimed in old if claimed.completion_id != new.completion_id)
    stale = next(claimed for claimed in old if claimed.completion_id == new.completion_id)

    # The other lease expired too, but its target was not claimed again.
    assert await queue.settle([finished(stale), finished(other), finished(new)]) == [finished(stale)]
    assert (await queue.status()).pending == 0


async def test_many_settlements_of_every_kind_in_one_call(queue: Store) -> None:
    await queue.put([change(f"c-{i:02}") for i in range(40)])
    claims = await claim(queue)
    settlements = [ENDINGS[i % len(ENDINGS)](claimed) for i, claimed in enumerate(claims)]

    assert await queue.settle(settlements) == []

    status = await queue.status()
    assert (status.pending, status.dead) == (10, 10)
    assert {each.completion_id for each in await claim(queue)} == {each.completion_id for each in claims[3::4]}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda claimed: Settlement(claimed, applied=[*numbers(claimed), 10**9]),
        lambda claimed: Settlement(claimed, applied=numbers(claimed), unchanged=numbers(claimed)),
        lambda claimed: Settlement(claimed, dead=[Death(10**9, "rejected", 1)]),
        lambda claimed: Settlement(claimed, trials=[(10**9, "failed")]),
        lambda claimed: Settlement(claimed, applied=numbers(claimed), trials=[(numbers(claimed)[0], "failed")]),
        lambda claimed: Settlement(claimed, trials=[(numbers(claimed)[0], "failed")] * 2),
    ],
)
async def test_a_settlement_of_changes_that_were_not_claimed_is_refused_whole(queue: Store, wrong: Ending) -> None:
    await queue.put([change("c-1"), change("c-2")])
    first, second = await claim(queue)

    with pytest.raises(ValueError, match="names a change"):
        await queue.settle([finished(first), wrong(second)])

    assert (await queue.status()).pending == 2
    assert await queue.settle([finished(first), finished(second)]) == []


async def test_dead_changes_become_letters_in_their_order(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1", "a", change_id="line-1"), change("c-1", "b")])
    await advance(10)
    claimed = await claim_one(queue)
    first, second = numbers(claimed)
    deaths = [Death(first, "not_found", 4, 404, "Completion ID not found", "req_1"), Death(second, "invalid", 0)]
    await queue.settle([Settlement(claimed, dead=deaths)])

    one, two = await letters(queue)

    assert one.number < two.number
    assert (one.completion_id, one.change_id, one.mode, one.metadata) == ("c-1", "line-1", "merge", '{"label":"a"}')
    assert (one.reason, one.attempts, one.status, one.error, one.request_id) == (
        "not_found",
        4,
        404,
        "Completion ID not found",
        "req_1",
    )
    assert one.died_at - one.enqueued_at == about(10)
    assert (two.change_id, two.metadata, two.reason) == (None, '{"label":"b"}', "invalid")
    assert (two.attempts, two.status, two.error, two.request_id) == (0, None, None, None)


async def test_errors_and_trials_that_are_no_proper_text_are_stored_all_the_same(queue: Store) -> None:
    await queue.put([change("c-1"), change("c-2")])
    first, second = await claim(queue)
    [number] = numbers(first)
    death = Death(number, "rejected", 1, 400, error="half \ud800, nul \0", request_id="\udc80")

    stale = await queue.settle(
        [Settlement(first, dead=[death]), Settlement(second, trials=[(numbers(second)[0], "half \ud800, nul \0")])]
    )

    assert stale == []
    assert trials_of(await claim_one(queue)) == {"x": "half ?, nul \N{REPLACEMENT CHARACTER}"}
    [letter] = await letters(queue)
    assert (letter.error, letter.request_id) == ("half ?, nul \N{REPLACEMENT CHARACTER}", "?")


async def test_extending_keeps_the_target_from_others(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2")])
    claims = await claim(queue)
    await advance(LEASE_SECONDS - 1)

    assert await queue.extend(claims, lease_seconds=LEASE_SECONDS) == []
    await advance(LEASE_SECONDS - 1)
    assert await claim(queue) == []
    await advance(1)
    assert len(await claim(queue)) == 2


async def test_an_expired_lease_holds_until_another_claim(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    await advance(LEASE_SECONDS + 10)

    assert await queue.extend([claimed], lease_seconds=LEASE_SECONDS) == []
    assert await claim(queue) == []
    assert await queue.settle([finished(claimed)]) == []


async def test_a_lease_that_ran_out_holds_where_a_claim_could_not_carry_its_target(
    queue: Store, advance: Advance
) -> None:
    full = range(MAX_CHANGES_PER_CLAIM)
    await queue.put([each for i in range(11) for each in changes(f"c-{i:02}", full)])
    first, second = await claim(queue), await claim(queue)
    [slow] = second
    await advance(LEASE_SECONDS)
    assert len(await claim(queue)) == len(first) == 10  # all but that one

    assert await queue.extend([slow], lease_seconds=LEASE_SECONDS) == []
    assert await queue.settle([finished(slow)]) == []


async def test_a_lease_that_went_to_another_is_lost(queue: Store, advance: Advance) -> None:
    await queue.put([change("c-1"), change("c-2")])
    old = await claim(queue)
    await advance(LEASE_SECONDS)
    [new] = await claim(queue, 1)

    lost = await queue.extend(old, lease_seconds=1_000)

    assert [each.completion_id for each in lost] == [new.completion_id]
    await advance(LEASE_SECONDS)
    assert [each.completion_id for each in await claim(queue)] == [new.completion_id]


async def test_a_settled_lease_is_lost_even_if_changes_are_left(queue: Store) -> None:
    await queue.put([change("c-1")])
    claimed = await claim_one(queue)
    await queue.settle([Settlement(claimed)])

    assert await queue.extend([claimed], lease_seconds=LEASE_SECONDS) == [claimed]
    assert len(await claim(queue)) == 1


async def _put(queue: Store) -> None:
    await queue.put([change("c-2")])


async def _settle(queue: Store) -> None:
    await queue.settle([Settlement(await claim_one(queue))])


async def _retry(queue: Store) -> None:
    await queue.retry_dead(EVERY_LETTER)


@pytest.mark.parametrize("event", [_put, _settle, _retry])
async def test_new_work_wakes_a_waiting_worker(queue: Store, event: Event) -> None:
    await bury(queue, change("c-1"))
    await queue.put([change("c-1")])
    await queue.wait_for_work(0)  # the events of the lines above are over
    waiting = asyncio.create_task(queue.wait_for_work(3_600))

    await asyncio.gather(event(queue), waiting)


async def test_work_that_came_just_before_the_wait_is_not_missed(queue: Store) -> None:
    await queue.put([change("c-1")])

    await queue.wait_for_work(3_600)


async def test_work_that_was_noticed_wakes_no_worker_again(queue: Store) -> None:
    await queue.put([change("c-1")])
    await queue.wait_for_work(3_600)
    for _ in range(3):  # the server's notifications may come after this object's event
        waiting = asyncio.create_task(queue.wait_for_work(3_600))
        for _ in range(10):
            await asyncio.sleep(0)
        if not waiting.done():
            break

    assert not waiting.done()
    waiting.cancel()


async def test_a_wait_ends_with_its_time_out(queue: Store) -> None:
    for seconds in (0, 0.001):
        await queue.wait_for_work(seconds)


@pytest.mark.parametrize("word", ["settle", "extend"])
async def test_a_lease_that_ran_out_holds_though_a_claim_that_was_full_has_looked_at_its_target(
    queue: Store, advance: Advance, word: str
) -> None:
    await queue.put([change("c-slow")])
    slow = await claim_one(queue)
    for i in range(10):
        await queue.put(changes(f"c-{i}", range(MAX_CHANGES_PER_CLAIM)))
    await advance(LEASE_SECONDS)
    assert [claimed.completion_id for claimed in await claim(queue)] == [f"c-{i}" for i in range(10)]

    if word == "settle":
        assert await queue.settle([finished(slow)]) == []
    else:
        assert await queue.extend([slow], lease_seconds=LEASE_SECONDS) == []
    assert await claim(queue) == []
