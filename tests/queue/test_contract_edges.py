"""Rare cases of the contract, on every store."""

from tests.queue.conformance.backends import Advance
from tests.queue.conformance.conftest import advance, backend, queue
from tests.queue.helpers import change, changes, claim, claim_one, failed, finished, numbers
from worker.queue import Death, Settlement, Store

__all__ = ["advance", "backend", "queue"]


async def test_what_came_early_and_is_due_late_comes_after_what_has_waited_longer(
    queue: Store, advance: Advance
) -> None:
    await queue.put([change("c-1")])
    await queue.settle([failed(await claim_one(queue))])  # due in five seconds
    await advance(1)
    await queue.put([change("c-2")])
    await advance(60)

    assert [(await claim(queue, 1))[0].completion_id for _ in range(2)] == ["c-2", "c-1"]


async def test_what_is_done_by_several_settlements_of_a_minute_adds_up(queue: Store) -> None:
    for completion_id in ("c-1", "c-2", "c-3"):
        await queue.put(changes(completion_id, range(3)))
        claimed = await claim_one(queue)
        first, second, third = numbers(claimed)
        dead = [Death(third, "rejected", attempts=1)]
        await queue.settle([Settlement(claimed, applied=[first], unchanged=[second], dead=dead)])

    [minute] = await queue.history(1)
    assert (minute.applied, minute.unchanged, minute.dead) == (3, 3, 3)


async def test_the_number_of_a_change_that_is_gone_is_not_given_again(queue: Store) -> None:
    seen: list[int] = []
    for _ in range(3):
        await queue.put([change("c-1")])
        claimed = await claim_one(queue)
        seen += numbers(claimed)
        await queue.settle([finished(claimed)])

    assert seen == sorted(set(seen))
