"""An idle daemon asks its store for little, and writes less."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.engine.virtual import Stage, ids
from tests.engine.wrapping import WrappedQueue
from tests.virtual import in_virtual_time
from worker.queue import Store
from worker.web.server import Surface

MINUTE = 60.0
WRITES = {"put", "claim", "extend", "settle", "take_quota", "write_note", "record_sample"}
READS = {"next_due_seconds", "status", "read_note", "read_notes", "history", "dead_reasons"}


class _Counted(WrappedQueue):
    """Counts the calls that reach the store."""

    def __init__(self, queue: Store, poll_seconds: float) -> None:
        super().__init__(queue)
        self.calls: Counter[str] = Counter()
        self._poll_seconds = poll_seconds

    @property
    def poll_seconds(self) -> float:
        return self._poll_seconds

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in WRITES | READS:
            return found

        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return found(*arguments, **named)

        return counted


async def calls_in_ten_idle_minutes(stage: Stage, poll_seconds: float) -> Counter[str]:
    """Let a worker with its page do some work, then idle; count the calls of ten idle minutes."""
    queue = _Counted(stage.queue, poll_seconds)
    worker = stage.worker(queue=queue, drain=False)
    async with Surface(worker, queue, None, show_values=False, terms=None, dropped_lines=int).running():
        running = asyncio.create_task(worker.run())
        await stage.put(*ids(30))
        await asyncio.sleep(2 * MINUTE)
        assert (await stage.queue.status()).pending == 0
        queue.calls.clear()
        await asyncio.sleep(10 * MINUTE)
        calls = queue.calls.copy()
        worker.stop()
        await running
    return calls


@in_virtual_time
async def test_an_idle_worker_writes_once_in_ten_seconds_and_polls_once_a_second() -> None:
    calls = await calls_in_ten_idle_minutes(Stage(), poll_seconds=1.0)

    assert sum(calls[name] for name in WRITES) <= 60
    assert calls["claim"] == 0
    assert calls["next_due_seconds"] <= 600
    assert calls["status"] > 0


@pytest.mark.parametrize("poll_seconds", [2.0, 1.5])
def test_an_idle_worker_on_postgresql_makes_less_than_one_transaction_a_second(poll_seconds: float) -> None:
    @in_virtual_time
    async def counted() -> None:
        calls = await calls_in_ten_idle_minutes(Stage(), poll_seconds)

        assert calls.total() <= 600

    counted()
