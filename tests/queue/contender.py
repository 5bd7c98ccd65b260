"""A process that puts, claims and settles; it prints a JSON line for each acknowledgement of the store."""

import asyncio
import sys
import time
from itertools import count

import msgspec

from tests.queue.helpers import change, finished, labels
from worker.changes import MetadataChange
from worker.queue import Claim, PendingSelection, Settlement, Store, open_queue


def say(**fact: object) -> None:
    print(msgspec.json.encode(fact).decode(), flush=True)  # noqa: T201 -- the test reads it


async def put(queue: Store, name: str, batches: int, size: int) -> None:
    """Put batches, each with one change for every of `size` completions."""
    for batch in range(batches):
        await queue.put([change(f"c-{i}", f"{name}:{batch}") for i in range(size)])
        say(put=batch)


async def work(queue: Store, name: str, putting: asyncio.Task[None]) -> None:
    """Claim and settle until nothing is left; some claims are half finished, some released."""
    rounds = 0
    while not putting.done() or await queue.next_due_seconds() is not None:
        claims = await queue.claim(3, lease_seconds=60, owner=name)
        settlements = []
        for claimed in claims:
            rounds += 1
            settlement = _ending(claimed, rounds)
            done = settlement.done()
            order = [label for each, label in zip(claimed.changes, labels(claimed), strict=True) if each.number in done]
            settlements.append(settlement)
            say(completion_id=claimed.completion_id, lease=claimed.lease, done=order)
        stale = await queue.settle(settlements)
        say(stale=len(stale))
        if not claims:
            await queue.wait_for_work(0.01)


def _ending(claimed: Claim, which: int) -> Settlement:
    match which % 5:
        case 0:
            return Settlement(claimed)
        case 1:
            return Settlement(claimed, applied=[claimed.changes[0].number])
        case _:
            return finished(claimed)


async def main(url: str, name: str, batches: int, size: int) -> None:
    async with open_queue(url) as queue, asyncio.TaskGroup() as group:
        putting = group.create_task(put(queue, name, batches, size))
        group.create_task(work(queue, name, putting))


async def confirm(url: str) -> None:
    """Settle one claim with what was confirmed, and hang."""
    async with open_queue(url) as queue:
        await queue.put([change("c-1")])
        [claimed] = await queue.claim(1, lease_seconds=60, owner="confirm")
        settlement = Settlement(claimed, applied=[claimed.changes[0].number], confirmed={"by": "one that was killed"})
        await queue.settle([settlement], keep_seconds=60)
        say(confirmed=claimed.completion_id)
        await asyncio.Event().wait()


async def hold(url: str) -> None:
    """Enqueue something, claim it, and hang."""
    async with open_queue(url) as queue:
        await queue.put([change("c-1")])
        [claimed] = await queue.claim(1, lease_seconds=60, owner="hold")
        say(held=claimed.completion_id, at=time.time())
        await asyncio.Event().wait()


async def endless(url: str, size: int) -> None:
    async with open_queue(url) as queue:
        await put(queue, "endless", sys.maxsize, size)


async def work_on_a_batch(url: str, size: int) -> None:
    """Put changes to one batch, a few urgent ones each time, and settle about as many, without end."""
    async with open_queue(url) as queue:
        for piece in count():
            await queue.put([named(piece, i) for i in range(size)], batch="b")
            await queue.put([named(piece, size)], batch="b", urgent=True)
            for place in ("urgent", "oldest"):
                claims = await queue.claim(size // 2, lease_seconds=60, owner="batch", place=place)
                say(piece=piece, place=place)
                await queue.settle([finished(claimed) for claimed in claims], remember=True)


def named(piece: int, number: int) -> MetadataChange:
    """A change, which is put with a part of a batch."""
    return change(f"c-{piece}-{number}", "x", change_id=f"id-{piece}-{number}")


async def withdraw(url: str) -> None:
    async with open_queue(url) as queue:
        say(told=str(await queue.withdraw(PendingSelection(batch="b"))))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["contend", url, name, batches, size]:
            asyncio.run(main(url, name, int(batches), int(size)))
        case ["confirm", url]:
            asyncio.run(confirm(url))
        case ["hold", url]:
            asyncio.run(hold(url))
        case ["endless", url, size]:
            asyncio.run(endless(url, int(size)))
        case ["batch", url, size]:
            asyncio.run(work_on_a_batch(url, int(size)))
        case ["withdraw", url]:
            asyncio.run(withdraw(url))
