"""Eight workers that are paused and resumed a hundred times under load: `python -m benchmarks.pausing 100 sqlite`.

What is measured is that nothing starts in a pause, that nothing is lost, and how long it takes until all are quiet.
"""

import asyncio
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
    seconds = sorted(crowd.quiet_seconds)
    took = time.monotonic() - started_at
    print(
        f"{rounds} pauses of {_WORKERS} workers on {store} in {took:.0f} s: nothing started in one, nothing was lost;"
        f" all quiet after {seconds[len(seconds) // 2]:.1f} s (median), {seconds[-1]:.1f} s (longest)"
    )


if __name__ == "__main__":
    words = dict(enumerate(sys.argv))
    asyncio.run(_measure(int(words.get(1, 100)), words.get(2, "sqlite")))
