"""Lease numbers on a Redis server."""

from pathlib import Path

from tests.queue.helpers import change, claim
from tests.queue.redis_server import running
from worker.queue.redis import RedisQueue


async def test_leases_rise_within_a_moment_and_when_the_clock_goes_back(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(server.url()) as queue, server.client() as client:
            await queue.put([change(f"c-{i}") for i in range(3)])
            leases = [(await queue.claim(1, lease_seconds=60, owner="worker"))[0].lease for _ in range(2)]
            ahead = leases[-1] + 3_600_000_000
            await client.hset("metasync:queue", "lease", ahead)
            leases += [claimed.lease for claimed in await claim(queue)]

    assert leases == [*sorted(leases[:2]), ahead + 1]
