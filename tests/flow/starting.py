"""How many requests flow control lets start."""

import asyncio

from worker.flow import Flow


async def started(flow: Flow, seconds: float) -> int:
    """How many requests start in so long, of which one stays under way."""
    now = asyncio.get_running_loop().time
    end, starts = now() + seconds, 0
    while now() < end:
        permit = flow.start("c", "update")
        if permit is None:
            await asyncio.sleep(flow.wait_seconds())
            continue
        starts += 1
        if starts > 1:
            permit.drop()
    return starts
