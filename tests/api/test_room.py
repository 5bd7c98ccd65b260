"""Room that many tasks share."""

import asyncio

import pytest

from worker.api.room import Room


async def test_room_is_granted_in_order_and_a_small_request_does_not_overtake() -> None:
    room, order = Room(10), list[str]()

    async def take(name: str, size: int) -> None:
        await room.take(size)
        order.append(name)

    await room.take(8)
    tasks = [asyncio.create_task(take("large", 10)), asyncio.create_task(take("small", 1))]
    await asyncio.sleep(0)
    assert repr(room) == "<Room [2 bytes free, 2 waiting]>"
    room.give(8)
    await tasks[0]
    assert order == ["large"]
    room.give(10)
    await tasks[1]
    assert order == ["large", "small"]
    room.give(1)
    assert repr(room) == "<Room [10 bytes free, 0 waiting]>"


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_wait_for_room_takes_nothing_and_blocks_no_other(*, granted: bool) -> None:
    room = Room(10)
    await room.take(8)
    first, second = asyncio.create_task(room.take(10)), asyncio.create_task(room.take(2))
    await asyncio.sleep(0)
    if granted:
        room.give(8)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    room.give(2)
    if not granted:
        room.give(8)
    assert repr(room) == "<Room [10 bytes free, 0 waiting]>"
