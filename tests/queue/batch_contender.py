"""A process that puts batches, claims, settles and withdraws, and prints a line for each round."""

import asyncio
import random
import sys
from itertools import count

from tests.queue.helpers import LEASE_SECONDS, change, died, finished
from worker.queue import DeadSelection, PendingSelection, open_queue


async def main(url: str, seed: int) -> None:
    dice = random.Random(seed)
    async with open_queue(url) as queue:
        for number in count():
            name = f"b-{dice.randrange(3)}"
            changes = [change(f"c-{dice.randrange(30)}") for _ in range(20)]
            await queue.put(changes, batch=name, urgent=dice.random() < 0.3)
            claims = await queue.claim(5, lease_seconds=LEASE_SECONDS, owner="contender")
            endings = [finished, finished, died]
            await queue.settle([dice.choice(endings)(claimed) for claimed in claims], remember=True)
            print(number, flush=True)  # noqa: T201 -- the test reads it
            await queue.withdraw(PendingSelection(batch=name))
            await queue.retry_dead(DeadSelection(batch=name))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
