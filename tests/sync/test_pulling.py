"""What a pull or a comparison holds in memory while others wait for a slow read."""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.sync.house import asks
from worker.api import Answer, Kind, Verdict
from worker.changes import MetadataChange
from worker.sync.comparing import Comparison
from worker.sync.lines import JsonLines
from worker.sync.pulling import Pull
from worker.sync.spool import Spool
from worker.sync.target import Target

COUNT = 100
SIZE = 1024 * 1024  # of each conversation
MOST_BYTES = 32 * 1024 * 1024


class _SlowFirst:
    """A service whose first completion comes once all others have been read."""

    def __init__(self, count: int = COUNT) -> None:
        self.held = 0
        self._count = count
        self._left = count - 1
        self._others_read = asyncio.Event()

    async def get(self, completion_id: str, **_: Any) -> Answer:
        await self._take_turns(completion_id)
        message = {"role": "assistant", "content": completion_id.ljust(SIZE)}
        body = {"id": completion_id, "metadata": {"a": "b"}, "model": "m", "choices": [{"message": message}]}
        return Answer(Verdict(Kind.OK, 200), {"a": "b"}, json.dumps(body).encode())

    async def _take_turns(self, completion_id: str) -> None:
        if completion_id == "c-0":
            await self._others_read.wait()
            gc.collect()
            held, _peak = tracemalloc.get_traced_memory()
            self.held = max(self.held, held)
            self._left, self._others_read = self._count - 1, asyncio.Event()
        else:
            self._left -= 1
            if not self._left:
                asyncio.get_running_loop().call_later(0, self._others_read.set)

    async def messages(self, completion_id: str, **_: Any) -> Answer:
        message = {"id": "msg-1", "role": "user", "content": completion_id}
        return Answer(Verdict(Kind.OK, 200), None, json.dumps({"data": [message], "has_more": False}).encode())

    async def list(self, **_: Any) -> Answer:
        raise NotImplementedError


@pytest.mark.parametrize("fields", [(), ("model",), ("messages",)], ids=str)
async def test_conversations_do_not_wait_in_memory_for_a_slow_read(tmp_path: Path, fields: Sequence[str]) -> None:
    service, asking, spool = _SlowFirst(), asks(), Spool()
    spool.add_ids(f"c-{number}" for number in range(COUNT))
    target = Target.open(str(tmp_path / "pulled.jsonl"), JsonLines(), gzipped=False)
    pull = Pull(asking, service, target, fields, tell=lambda *_: None)
    tracemalloc.start()
    try:
        await asking.run(pull.named(spool))
    finally:
        tracemalloc.stop()
    target.close()
    spool.close()

    assert service.held < MOST_BYTES
    lines = [json.loads(line) for line in (tmp_path / "pulled.jsonl").read_bytes().splitlines()]
    assert {line["completion_id"] for line in lines} == {f"c-{number}" for number in range(COUNT)}
    assert all({"completion_id", "metadata", "mode", *fields} == set(line) for line in lines)
    if "messages" in fields:
        assert all([each["role"] for each in line["messages"]] == ["user", "assistant"] for line in lines)
    else:
        assert [line["completion_id"] for line in lines] == [f"c-{number}" for number in range(COUNT)]


class _SlowFirstOfLarge(_SlowFirst):
    """It has other values than the changes, as large as they may be."""

    async def get(self, completion_id: str, **_: Any) -> Answer:
        await self._take_turns(completion_id)
        return Answer(Verdict(Kind.OK, 200), _large("before"), b"")


def _large(label: str) -> dict[str, str]:
    """The largest metadata: 32 KB."""
    return {f"key-{number:02d}": f"{label}-{number:02d}".ljust(512, "\U0001f600") for number in range(16)}


@pytest.mark.parametrize("lag_seconds", [0.0, 1e-9])
async def test_differences_do_not_wait_in_memory_for_a_slow_read(lag_seconds: float) -> None:
    count = 1_000
    service, asking, spool = _SlowFirstOfLarge(count), asks(), Spool()
    spool.add([MetadataChange(f"c-{number}", _large(f"{number}")) for number in range(count)])
    found = list[str]()
    comparison = Comparison(
        asking,
        service,
        spool,
        semantics="unknown",
        read_lag_seconds=lag_seconds,
        now=time.monotonic,
        sleep=asyncio.sleep,
    )
    tracemalloc.start()
    try:
        await asking.run(comparison.run(lambda difference: found.append(difference.completion_id)))
    finally:
        tracemalloc.stop()
    spool.close()

    assert sorted(found) == sorted(f"c-{number}" for number in range(count))
    assert service.held < MOST_BYTES
