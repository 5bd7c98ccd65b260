"""The cost of an update, in counts that do not depend on the machine: calls, transactions, writes.

The bounds are a tenth above the counts when they were set. A change that exceeds one has made the worker slower: find a
leaner way, or raise the bound and give the reason.
"""

import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

import worker
from config import logs, sink
from tests.engine.conftest import Bench
from tests.engine.wrapping import WrappedQueue
from worker.changes import MetadataChange
from worker.engine import Options, Worker, recorder
from worker.queue import Claim, Settlement
from worker.queue.memory import MemoryQueue

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BATCH = 256
UPDATES = 4 * BATCH
CALLS_AN_UPDATE = 175.0  # 160 on a quiet machine: a loaded one cuts batches short

_HOUSE = str(Path(worker.__file__).parent)
_OTHERS = (f"{_HOUSE}/simulator/", f"{_HOUSE}/queue/memory/")  # stand-ins, whose cost does not count


@pytest.fixture(autouse=True)
def full_batches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any machine: no batch is recorded before it is full. If one had to wait, the test would not end."""
    monkeypatch.setattr(recorder, "_FLUSH_SECONDS", 3_600.0)


class CountedQueue(WrappedQueue):
    """Counts the calls that are a transaction each."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.queue)
        self.calls: Counter[str] = Counter()

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:
        claims = await super().claim(limit, **terms)
        self.calls["claim" if claims else "empty claim"] += 1
        return claims

    async def settle(self, settlements: Sequence[Settlement], **terms: Any) -> list[Settlement]:
        self.calls["settle"] += 1
        return await super().settle(settlements, **terms)


async def _fill(bench: Bench) -> None:
    ids = [f"chatcmpl-{number}" for number in range(UPDATES)]
    for completion_id in ids:
        bench.simulator.seed(completion_id)
    await bench.queue.put([MetadataChange(each, {"grade": "A", "reviewer": "ana"}, "replace") for each in ids])


async def test_a_full_batch_is_one_claim_and_one_transaction(bench: Bench) -> None:
    await _fill(bench)
    queue = CountedQueue(bench)
    summary = await bench.worker(queue=queue, batch_size=BATCH).run()
    assert summary.totals.applied == UPDATES
    assert queue.calls["claim"] == queue.calls["settle"] == UPDATES / BATCH


async def test_the_lines_of_a_batch_are_one_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await _fill(bench)
    written = _Written()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(written, 1 << 20)))
    logs.configure("json", "info")
    summary = await Worker(bench.queue, bench.client, Options(drain=True, batch_size=BATCH)).run()
    sink.flush()
    assert summary.totals.applied == UPDATES
    assert sum(write.count(b"change.applied") for write in written.writes) == UPDATES
    assert len(written.writes) <= UPDATES / BATCH + 4  # the worker's beginning and its end have lines too


async def test_an_update_takes_no_more_calls_than_it_did(bench: Bench) -> None:
    bench.queue = MemoryQueue()
    await _fill(bench)
    with _counted_calls() as calls:
        await bench.drain(batch_size=BATCH)
    per_update = calls.total() / UPDATES
    assert per_update <= CALLS_AN_UPDATE, calls.most_common(40)


class _Written(io.RawIOBase):
    """Keeps every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        self.writes.append(bytes(data))
        return len(self.writes[-1])


@contextmanager
def _counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of this project's Python functions in here; each resumption of a coroutine is one."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_HOUSE) and not code.co_filename.startswith(_OTHERS):
            calls[code.co_qualname] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
