"""Eight workers that are paused and resumed a hundred times under load: `python -m benchmarks.pausing 100 sqlite`.

It checks that nothing is lost, and that nothing starts once all workers are quiet. It measures how long after the pause
the service sees the last request start, and how long it takes until all workers are quiet.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.crowd import Crowd
from tests.queue.stores import STORES

_WORKERS = 8


async def _measure(rounds: int, store: str) -> None:
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with STORES[store](Path(folder)) as url:
            crowd = Crowd(Path(folder), url, _WORKERS)
            await crowd.pause_again_and_again(rounds)
    took = time.monotonic() - started_at
    print(f"{rounds} pauses of {_WORKERS} workers on {store} in {took:.0f} s: nothing was lost")
    for what, seconds in (("last request started", crowd.last_start_seconds), ("all quiet", crowd.quiet_seconds)):
        print(f"{what} after {statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s (longest)")


if __name__ == "__main__":
    words = dict(enumerate(sys.argv))
    asyncio.run(_measure(int(words.get(1, 100)), words.get(2, "sqlite")))
