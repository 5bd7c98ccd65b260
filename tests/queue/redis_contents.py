"""Checks that a queue's keys are consistent."""

from collections import Counter
from typing import Any

import msgspec

from worker.queue import Store
from worker.queue.redis.codec import _Change

_read = msgspec.msgpack.Decoder(_Change).decode


async def check(client: Any, queue: Store, base: str = "metasync:") -> None:
    """Assert that all keys about pending changes agree with their lists; no process may change them meanwhile.

    Args:
        client: of the queue's server; it decodes nothing.
    """
    prefix = f"{base}changes:".encode()
    keys = {key async for key in client.scan_iter(match=f"{base}changes:*", count=1_000)}
    reading = client.pipeline(transaction=False)
    for key in keys:
        reading.lrange(key, 0, -1)
    lists = {
        key.removeprefix(prefix): [_read(each) for each in of_one]
        for key, of_one in zip(keys, await reading.execute(), strict=True)
    }
    sets = {
        name: dict(await client.zrange(base + name, 0, -1, withscores=True)) for name in ("due", "urgent", "oldest")
    }
    urgent = {key: sum(each.is_urgent for each in changes) for key, changes in lists.items()}
    urgent = {key: count for key, count in urgent.items() if count}
    changes = [each for of_one in lists.values() for each in of_one]

    assert set(sets["urgent"]) == set(urgent)
    assert set(sets["due"]) == set(lists) - set(urgent)
    assert sets["oldest"] == {key: of_one[0].enqueued_at for key, of_one in lists.items()}
    counted = await client.hgetall(f"{base}urgent:changes")
    assert {key: int(count) for key, count in counted.items()} == urgent
    for of_one in lists.values():
        assert [each.number for each in of_one] == sorted({each.number for each in of_one})
    places = {f"{each.number}:".encode() + key for key, of_one in lists.items() for each in of_one if each.change_id}
    assert set(await client.hvals(f"{base}change_ids")) == places
    assert set(await client.hkeys(f"{base}lease")) <= set(lists)
    assert (await queue.status()).pending == len(changes)
    pending = Counter(each.batch for each in changes if each.batch)
    batches = await queue.batches()
    assert {batch.name: batch.pending for batch in batches if batch.pending} == pending
    finished = {batch.name.encode() for batch in batches if not batch.pending}
    assert set(await client.zrange(f"{base}batches:finished", 0, -1)) == finished
