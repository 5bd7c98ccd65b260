"""Leases that are kept, and leases that are lost: their deadlines are never overestimated."""

import asyncio
import sys
from collections.abc import Sequence

import msgspec
import pytest

from tests.engine.parts import ID, events, leases_on, now, queue_with, running
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.engine.work import BYTES_OF_A_CHANGE, Interruption
from worker.queue import Claim

OTHER = "chatcmpl-2"
SIZE_BYTES = sys.getsizeof('{"grade":"A"}') + BYTES_OF_A_CHANGE  # of a claim


class _Slow(WrappedQueue):
    """A store that takes its time to extend a lease."""

    takes_seconds = 0.0

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        lost = await super().extend(claims, lease_seconds=lease_seconds)
        await asyncio.sleep(self.takes_seconds)
        return lost


async def _slow(*completion_ids: str) -> tuple[_Slow, list[Claim]]:
    queue = _Slow(await queue_with(completion_ids))
    return queue, await queue.claim(10, lease_seconds=30.0, owner="test")


@in_virtual_time
async def test_a_lease_runs_from_the_request_of_the_heartbeat_not_from_its_answer() -> None:
    queue, claims = await _slow(ID)
    queue.takes_seconds = 4.0
    leases, *_ = leases_on(queue)
    (work,) = leases.take(claims, now())
    assert work.deadline == 30.0
    with running(leases.heartbeat()):
        await asyncio.sleep(12.0)  # asked at 7.5 s, answered at 11.5 s
        assert work.deadline == 37.5


@in_virtual_time
async def test_a_lease_survives_two_failed_heartbeats() -> None:
    queue, claims = await _slow(ID)
    leases, tallies, logger = leases_on(queue)
    (work,) = leases.take(claims, now())
    queue.unavailable.add("extend")
    with running(leases.heartbeat(), leases.expire()):
        await asyncio.sleep(20.0)
        queue.unavailable.clear()
        await asyncio.sleep(100.0)
        assert work.interruption is None
        assert (tallies.leases_lost, queue.refused, len(events(logger, "store.unavailable"))) == (0, 2, 2)


@in_virtual_time
async def test_work_ends_with_its_lease_when_the_store_extends_none() -> None:
    queue, claims = await _slow(ID)
    leases, tallies, logger = leases_on(queue)
    (work,) = leases.take(claims, now())
    queue.unavailable.add("extend")
    with running(leases.heartbeat(), leases.expire()):
        await asyncio.sleep(29.9)
        assert work.interruption is None
        await asyncio.sleep(0.2)
        assert work.interruption is Interruption.LEASE_LOST
        await asyncio.sleep(300.0)
        assert (tallies.leases_lost, len(events(logger, "lease.lost"))) == (1, 1)


@in_virtual_time
async def test_only_claims_whose_lease_is_lost_are_interrupted() -> None:
    queue, claims = await _slow(ID, OTHER)
    leases, tallies, logger = leases_on(queue)
    works = leases.take(claims, now())
    await asyncio.sleep(31.0)  # they ran out, and another worker claimed them
    await queue.claim(1, lease_seconds=3_600.0, owner="another")
    with running(leases.heartbeat()):
        await asyncio.sleep(11.0)
    assert [work.interruption for work in works] == [Interruption.LEASE_LOST, None]
    assert [event["completion_id"] for event in events(logger, "lease.lost")] == [ID]
    assert tallies.leases_lost == 1


@in_virtual_time
async def test_a_second_claim_of_a_held_completion_interrupts_the_first() -> None:
    queue, claims = await _slow(ID, OTHER)
    leases, tallies, logger = leases_on(queue)
    older, other = leases.take(claims, now())
    await asyncio.sleep(31.0)  # frozen, so that nothing has extended or expired the leases
    (newer,) = leases.take(await queue.claim(1, lease_seconds=30.0, owner="test"), now())
    assert [work.interruption for work in (older, other, newer)] == [Interruption.LEASE_LOST, None, None]
    assert (tallies.leases_lost, [event["completion_id"] for event in events(logger, "lease.lost")]) == (1, [ID])
    leases.drop([older.claim])
    assert leases.works == [other, newer]
    (newest,) = leases.take([msgspec.structs.replace(newer.claim, lease=99)], now())
    assert (newer.interruption, newest.interruption) == (Interruption.LEASE_LOST, None)


@in_virtual_time
async def test_a_claim_of_a_completion_that_was_settled_before_interrupts_nothing() -> None:
    queue, claims = await _slow(ID)
    leases, tallies, _ = leases_on(queue)
    (older,) = leases.take(claims, now())
    leases.drop(claims)
    leases.take([msgspec.structs.replace(claims[0], lease=99)], now())
    assert (older.interruption, tallies.leases_lost) == (None, 0)


@in_virtual_time
@pytest.mark.parametrize("bound", [{"most": 1}, {"most_bytes": 2 * SIZE_BYTES}], ids=["claims", "bytes"])
async def test_there_is_room_until_the_held_claims_exceed_a_limit(bound: dict[str, int]) -> None:
    queue, claims = await _slow(ID, OTHER)
    leases, *_ = leases_on(queue, **bound)
    leases.take(claims[:1], now())
    assert leases.has_room  # the limit, and not more
    leases.take(claims[1:], now())
    assert not leases.has_room
    waiting = asyncio.create_task(leases.fewer(60.0))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    leases.drop(claims[1:])
    leases.drop(claims[1:])  # a second drop changes nothing
    await asyncio.wait_for(waiting, 1.0)
    assert leases.has_room
    leases.take(claims[1:], now())
    assert not leases.has_room
    started = now()
    await leases.fewer(5.0)
    assert now() - started == pytest.approx(5.0)


@in_virtual_time
async def test_urgent_claims_are_counted_apart_and_have_their_own_room() -> None:
    queue, claims = await _slow(ID, OTHER)
    leases, *_ = leases_on(queue, most_bytes=4 * SIZE_BYTES - 1)
    leases.take(claims[:1], now())
    assert (leases.urgent, leases.has_room_for_urgent) == (0, True)
    leases.take(claims[1:], now(), urgent=True)
    assert (leases.urgent, leases.has_room_for_urgent) == (1, False)
    leases.drop(claims)
    leases.drop(claims)
    assert (leases.urgent, leases.has_room_for_urgent) == (0, True)


@in_virtual_time
async def test_a_settled_claim_is_not_extended_and_makes_room() -> None:
    queue, claims = await _slow(ID)
    leases, *_ = leases_on(queue)
    leases.take(claims, now())
    waiting = asyncio.create_task(leases.fewer_than(1))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    leases.drop(claims)
    await waiting
    assert (len(leases), leases.works) == (0, [])
