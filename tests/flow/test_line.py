"""The waiting line's timers."""

import asyncio
import math

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
