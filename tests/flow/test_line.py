"""The waiting line: whose turn it is, and its timers."""

import asyncio
import math

import pytest

from tests.virtual import in_virtual_time
from worker.flow.line import Line


@in_virtual_time
async def test_a_wait_for_a_change_is_no_shorter_than_a_timer_can_be() -> None:
    line = Line(
        start=lambda _: None,
        wait_seconds=lambda: math.inf,
        has_room_for_urgent=lambda: True,
        give_back=lambda *_: None,
    )
    await line.change(1e-6)
    assert asyncio.get_running_loop().time() >= 0.001


class _Slots:
    """Slots that a test frees one by one, and who gets them."""

    def __init__(self) -> None:
        self.free = 0
        self.room_for_urgent = True
        self.starts: list[str] = []
        self.line = Line(
            start=self._start,
            wait_seconds=lambda: math.inf,
            has_room_for_urgent=lambda: self.room_for_urgent,
            give_back=lambda *_: None,
        )

    def _start(self, urgent: bool) -> float | None:  # noqa: FBT001 -- called by the line
        if not self.free:
            return None
        self.free -= 1
        self.starts.append("urgent" if urgent else "usual")
        return 0.0

    async def gives(self, slots: int) -> list[str]:
        """Free so many; returns who has got one."""
        self.starts.clear()
        self.free = slots
        self.line.move()
        await asyncio.sleep(0)
        return list(self.starts)


@in_virtual_time
async def test_urgent_and_usual_requests_take_turns_while_both_wait() -> None:
    slots = _Slots()
    tasks = [asyncio.create_task(slots.line.turn()) for _ in range(3)]
    tasks += [asyncio.create_task(slots.line.turn(urgent=True)) for _ in range(5)]
    await asyncio.sleep(0)
    assert repr(slots.line) == "<Line [8 waiting]>"
    assert await slots.gives(4) == ["urgent", "usual"] * 2
    assert await slots.gives(4) == ["urgent", "usual", "urgent", "urgent"]  # no usual one is left
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_urgent_requests_wait_behind_the_others_while_they_have_no_room() -> None:
    slots = _Slots()
    slots.room_for_urgent = False
    tasks = [asyncio.create_task(slots.line.turn(urgent=urgent)) for urgent in [True] * 2 + [False] * 2]
    await asyncio.sleep(0)
    assert await slots.gives(3) == ["usual", "usual", "urgent"]
    assert await slots.gives(1) == ["urgent"]
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_all_in_line_are_sent_back_urgent_or_not() -> None:
    slots = _Slots()
    tasks = [asyncio.create_task(slots.line.turn(urgent=urgent)) for urgent in (True, False, True, False)]
    await asyncio.sleep(0)
    slots.line.send_back()
    assert await asyncio.gather(*tasks) == [None] * 4
    assert len(slots.line) == 0


@in_virtual_time
async def test_the_next_start_is_timed_and_no_sooner_than_a_timer_can_be() -> None:
    loop, looked = asyncio.get_running_loop(), list[float]()
    waits = iter([1.0, 1e-6, math.inf])

    def start(_: bool) -> None:  # noqa: FBT001 -- called by the line
        looked.append(loop.time())

    line = Line(
        start=start, wait_seconds=lambda: next(waits), has_room_for_urgent=lambda: True, give_back=lambda *_: None
    )
    task = asyncio.create_task(line.turn())
    await asyncio.sleep(10.0)
    assert looked == pytest.approx([0.0, 1.0, 1.001])
    task.cancel()


@in_virtual_time
async def test_a_wait_for_a_change_ends_with_the_change() -> None:
    loop = asyncio.get_running_loop()
    line = _Slots().line
    waiting = [asyncio.create_task(line.change(seconds)) for seconds in (math.inf, 100.0)]
    await asyncio.sleep(1.0)
    line.wake()
    await asyncio.gather(*waiting)
    assert loop.time() == 1.0
    await line.change(2.0)  # it waits anew
    assert loop.time() == 3.0
