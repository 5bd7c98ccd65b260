"""The writer of results, when the machine does not let it write."""

import threading
from pathlib import Path

import pytest

from tests.engine.parts import ID
from worker.engine.outcome import Outcome
from worker.engine.results import ResultsLost
from worker.queue import Claim, QueuedChange
from worker.results import ResultsFile, ResultsWriter


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")  # as `Thread.start` says it at a limit of processes


async def test_results_are_lost_in_order_where_no_further_thread_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = QueuedChange(1, ID, None, "merge", '{"a":"1"}', 0.0)
    outcome = Outcome(Claim(ID, 1, (change,), age_seconds=0.0), applied=(change,))
    path = tmp_path / "results.jsonl"
    told = r"results\.jsonl: results cannot be written there: a thread is needed .can't start new thread."
    with ResultsFile(str(path)) as file, monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(ResultsLost, match=told):
            await ResultsWriter(file).write([outcome])
    assert path.read_bytes() == b""
