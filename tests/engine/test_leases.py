"""One writer per completion: leases are kept while work goes on, and a lost one ends it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from tests.engine.conftest import Bench
from tests.engine.wrapping import WrappedQueue
from worker.queue import Claim, QueuedChange

ID = "chatcmpl-1"


async def test_heartbeats_keep_a_lease_that_is_shorter_than_the_request(bench: Bench) -> None:
    bench.simulator.seed(ID)
    bench.simulator.options = replace(bench.simulator.options, latency=1.5)
    await bench.put(ID, {"grade": "A"}, mode="replace")
    first, second = await asyncio.gather(bench.drain(lease_seconds=0.5), bench.drain(lease_seconds=0.5))
    assert first.totals.applied + second.totals.applied == 1
    assert bench.simulator.counters.count("update") == 1
    assert bench.simulator.violations == []


class LosesLeases(WrappedQueue):
    """Says once that every lease is lost, as a store does after another worker's claim."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.queue)
        self.lost: list[Claim] = []

    async def extend(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Claim]:
        if claims and not self.lost:
            self.lost = list(claims)
            return self.lost
        return await super().extend(claims, lease_seconds=lease_seconds)


async def test_a_lost_lease_cancels_the_call_and_records_nothing(bench: Bench) -> None:
    bench.simulator.seed(ID)
    bench.simulator.fail_next("hang")
    await bench.put(ID, {"grade": "A"}, mode="replace")
    queue = LosesLeases(bench)
    summary = await bench.worker(queue=queue, lease_seconds=0.6).run()
    assert [claim.completion_id for claim in queue.lost] == [ID]
    assert len(bench.events("lease.lost")) == 1
    assert summary.totals.applied == 1  # by a second claim, when the lease had run out
    assert not bench.events("change.retry_scheduled")


async def test_no_request_outlasts_a_lease_that_cannot_be_extended(bench: Bench) -> None:
    bench.simulator.seed(ID)
    bench.simulator.fail_next("hang")
    await bench.put(ID, {"grade": "A"}, mode="replace")
    queue = WrappedQueue(bench.queue)
    queue.unavailable.add("extend")
    summary = await bench.worker(queue=queue, lease_seconds=0.5).run()
    assert summary.totals.applied == 1
    assert bench.simulator.violations == []
    assert bench.events("store.unavailable")


class FreezesOnce(WrappedQueue):
    """Stops the whole process, as SIGSTOP does, while the store's answer to the first claim is on its way."""

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        claims = await super().claim(limit, **terms)
        if claims and not self.refused:
            self.refused = 1
            time.sleep(terms["lease_seconds"] + 0.1)  # noqa: ASYNC251 -- nothing of this process shall run
        return claims


async def test_no_request_starts_on_a_lease_that_has_run_out(bench: Bench) -> None:
    bench.simulator.seed(ID)
    bench.simulator.options = replace(bench.simulator.options, latency=0.2)
    await bench.client.get(ID, timeout_seconds=5)  # so that a connection is open, and a request would be on its way
    await bench.put(ID, {"grade": "A"}, mode="replace")
    summary = await bench.worker(queue=FreezesOnce(bench.queue), lease_seconds=0.5).run()
    assert summary.totals.applied == 1
    assert bench.simulator.counters.count("update") == 1


class StoresNonsense(WrappedQueue):
    """Hands out changes that others have written into the store."""

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        claims = await super().claim(limit, **terms)
        return [msgspec.structs.replace(claim, changes=tuple(map(self._spoiled, claim.changes))) for claim in claims]

    @staticmethod
    def _spoiled(change: QueuedChange) -> QueuedChange:
        spoiled = {'{"n":"0"}': "[]", '{"n":"1"}': '{"n":7}', '{"n":"2"}': '{"'}
        return msgspec.structs.replace(change, metadata=spoiled.get(change.metadata, change.metadata))


async def test_an_invalid_stored_change_dies_as_invalid(bench: Bench) -> None:
    bench.simulator.seed(ID)
    await bench.put(ID, *({"n": str(number)} for number in range(5)))
    summary = await bench.worker(queue=StoresNonsense(bench.queue)).run()
    assert summary.totals.reasons == {"invalid": 3}
    assert summary.totals.applied == 2
    assert bench.simulator.metadata(ID) == {"n": "4"}
