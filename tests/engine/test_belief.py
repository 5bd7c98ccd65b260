"""An answer is believed only if it is about this completion, whole and fresh."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engine.conftest import Bench
from worker.api import Client
from worker.changes import MetadataChange
from worker.engine import Ending
from worker.engine.trials import Trials
from worker.queue import DeadLetter, open_queue
from worker.simulator import Answer, Fault

ID = "chatcmpl-1"
IDS = [f"chatcmpl-{number}" for number in range(1, 13)]

_TOO_LARGE_BYTES = 17 * 1_048_576
_JSON = "application/json"


async def _seed(bench: Bench, metadata: Mapping[str, str] | None = None, ids: Sequence[str] = IDS) -> None:
    """Store completions, and enqueue a merge for each."""
    bench.simulator.seed_completions(ids, metadata)
    await bench.queue.put([MetadataChange(completion_id, {"grade": "A"}) for completion_id in ids])


async def _is_all_as_it_was(bench: Bench, path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether nothing was written, and everything is pending without a counted attempt."""
    status = await bench.queue.status()
    with closing(sqlite3.connect(path / "queue.db")) as file:
        kept = [_trials(trials) for (trials,) in file.execute("SELECT trials FROM change")]
    return (
        bench.simulator.all_metadata() == dict.fromkeys(IDS, metadata)
        and (status.pending, status.in_flight, status.dead) == (len(IDS), 0, 0)
        and [trials.counted for trials in kept] == [0] * len(IDS)
    )


def _trials(text: str | None) -> Trials:
    return Trials() if text is None else msgspec.json.decode(text, type=Trials)


@asynccontextmanager
async def _another(bench: Bench, path: Path) -> AsyncIterator[Bench]:
    """The same queue and service for another worker, with its own connections."""
    async with (
        open_queue(f"sqlite:///{path}/queue.db") as queue,
        Client(base_url=bench.simulator.base_url, api_key="sk-test") as client,
    ):
        yield Bench(queue, bench.simulator, client, bench.logger)


# Reads that lag


async def test_keys_that_a_stale_read_does_not_show_are_not_wiped(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, stale_reads_seconds=3.0)
    bench.simulator.seed(ID, {"kept": "1"})
    for key in ("a", "b"):
        await bench.put(ID, {key: "1"})
        await bench.drain(halt_timeout_seconds=0)
    assert bench.simulator.metadata(ID) == {"kept": "1", "a": "1", "b": "1"}


async def test_a_value_that_goes_back_and_forth_is_never_unchanged_by_a_stale_read(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, stale_reads_seconds=3.0, history=10)
    bench.simulator.seed(ID, {"flag": "0"})
    unchanged = 0
    for value in ("1", "0", "1"):
        await bench.put(ID, {"flag": value})
        unchanged += (await bench.drain()).totals.unchanged
    assert bench.simulator.history(ID) == [{"flag": "1"}, {"flag": "0"}, {"flag": "1"}]
    assert unchanged == 0


async def test_an_earlier_answer_on_a_connection_out_of_step_is_a_stale_read(bench: Bench, tmp_path: Path) -> None:
    bench.simulator.seed(ID)
    async with _another(bench, tmp_path) as other:
        bench.simulator.fail_next(Fault("shifted", on="update"))
        for key, worker in (("a", bench), ("b", other), ("c", bench)):
            await bench.put(ID, {key: "1"}, mode="replace" if key == "a" else "merge")
            await worker.drain(read_lag_seconds=2)
    assert bench.simulator.metadata(ID) == {"a": "1", "b": "1", "c": "1"}


async def test_a_read_after_the_lag_is_believed_and_saves_the_call(bench: Bench) -> None:
    bench.simulator.seed(ID, {"grade": "A"})
    await bench.put(ID, {"grade": "A"})
    summary = await bench.drain(halt_timeout_seconds=0)
    assert (summary.totals.unchanged, bench.simulator.counters.count("update")) == (1, 0)


# A service that merges


async def test_a_key_that_a_merging_service_keeps_is_a_dead_letter_that_says_what_to_do(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, semantics="merge")
    bench.simulator.seed(ID, {"draft": "true"})
    await bench.put(ID, {"draft": None}, {"grade": "A"})
    summary = await bench.drain(read_lag_seconds=0)
    assert (summary.ending, summary.totals.applied, summary.totals.dead) == (Ending.DRAINED, 1, 1)
    letter = await _only_letter(bench)
    assert (letter.reason, letter.metadata) == ("not_persisted", '{"draft":null}')
    assert 'a service that merges keeps draft: set it to "" instead' in (letter.error or "")
    assert bench.simulator.counters.count("update") == 2  # a first answer may be an old one


async def test_three_completions_that_keep_replaced_keys_halt_under_semantics_unknown(
    bench: Bench,
) -> None:
    bench.simulator.options = replace(bench.simulator.options, semantics="merge")
    bench.simulator.seed_completions(IDS, {"old": "1"})
    await bench.queue.put([MetadataChange(completion_id, {"new": "2"}, "replace") for completion_id in IDS])
    summary = await bench.drain(max_concurrency=1, halt_timeout_seconds=0)
    assert (summary.ending, summary.reason, summary.totals.changes) == (Ending.HALTED, "service_merges", 0)
    assert "METASYNC_SEMANTICS" in (summary.cause.error or "" if summary.cause else "")
    status = await bench.queue.status()
    assert (status.pending, status.dead) == (len(IDS), 0)


async def test_old_answers_to_replacements_are_not_taken_for_a_service_that_merges(bench: Bench) -> None:
    worker = bench.worker(drain=False)
    running = asyncio.create_task(worker.run())
    for completion_id in IDS[:4]:
        bench.simulator.seed(completion_id, {"old": "1"})
        old = {"id": completion_id, "metadata": {"old": "1", "new": "2"}}
        bench.simulator.fail_next(Fault(Answer(200, msgspec.json.encode(old)), done=True))
        await bench.put(completion_id, {"new": "2"}, mode="replace")
        while (await bench.queue.status()).pending:
            await asyncio.sleep(0.01)
    worker.stop()
    await running
    assert worker.totals.applied == 4
    assert bench.events("worker.halted") == []


async def test_leftovers_of_a_replacement_are_counted_under_semantics_merge(
    bench: Bench,
) -> None:
    bench.simulator.options = replace(bench.simulator.options, semantics="merge")
    bench.simulator.seed(ID, {"old": "1"})
    await bench.put(ID, {"new": "2"}, mode="replace")
    summary = await bench.drain(semantics="merge")
    assert (summary.ending, summary.totals.applied, summary.totals.leftover) == (Ending.DRAINED, 1, 1)


async def test_leftovers_of_a_replacement_are_not_persisted_under_semantics_replace(
    bench: Bench,
) -> None:
    bench.simulator.options = replace(bench.simulator.options, semantics="merge")
    bench.simulator.seed(ID, {"old": "1"})
    await bench.put(ID, {"new": "2"}, mode="replace")
    summary = await bench.drain(semantics="replace", read_lag_seconds=0)
    assert (summary.ending, summary.totals.applied, summary.totals.leftover) == (Ending.DRAINED, 0, 0)
    assert (await _only_letter(bench)).reason == "not_persisted"


# Answers that hide metadata


async def test_a_merge_never_overwrites_metadata_that_no_read_shows(bench: Bench, tmp_path: Path) -> None:
    await _seed(bench, {"kept": "1"})
    bench.simulator.options = replace(bench.simulator.options, faults=(Fault("hidden_metadata", on="get"),))
    summary = await bench.drain(max_concurrency=1, halt_timeout_seconds=0)
    assert (summary.ending, summary.reason) == (Ending.HALTED, "metadata_hidden")
    assert bench.simulator.counters.count("get") <= 5  # three, the first probe, and one that has not failed
    assert await _is_all_as_it_was(bench, tmp_path, {"kept": "1"})


async def test_a_completion_with_hidden_metadata_dies_alone_and_unwritten(bench: Bench) -> None:
    await _seed(bench, {"kept": "1"})
    hidden = Fault("hidden_metadata", on="get", completion_id=ID)
    bench.simulator.options = replace(bench.simulator.options, faults=(hidden,))
    summary = await bench.drain(max_concurrency=2, halt_timeout_seconds=5)
    letter = await _only_letter(bench)
    assert (letter.completion_id, letter.reason) == (ID, "unreadable")
    assert (summary.ending, summary.totals.applied, summary.totals.dead) == (Ending.DRAINED, len(IDS) - 1, 1)
    assert bench.simulator.metadata(ID) == {"kept": "1"}
    assert bench.simulator.metadata(IDS[1]) == {"kept": "1", "grade": "A"}


async def test_a_value_that_the_service_alters_is_a_dead_letter_and_the_other_changes_are_applied(
    bench: Bench,
) -> None:
    bench.simulator.options = replace(bench.simulator.options, trim_values=8)
    bench.simulator.seed(ID)
    await bench.put(ID, {"note": "longer than eight"}, {"grade": "A"}, {"place": " there "})
    summary = await bench.drain(read_lag_seconds=0)
    assert (summary.ending, summary.totals.applied, summary.totals.dead) == (Ending.DRAINED, 1, 2)
    assert {letter.reason for letter in await bench.dead()} == {"not_persisted"}
    assert bench.simulator.metadata(ID) == {"note": "longer t", "grade": "A", "place": "there"}


@pytest.mark.parametrize(
    "unread",
    [Fault("no_content", on="update"), Fault(Answer(200, b" " * _TOO_LARGE_BYTES), on="update", done=True)],
    ids=["204", "too large"],
)
async def test_a_success_that_cannot_be_read_is_applied_unverified(bench: Bench, unread: Fault) -> None:
    await _seed(bench, ids=IDS[:3])
    bench.simulator.options = replace(bench.simulator.options, faults=(unread,))
    summary = await bench.drain(halt_timeout_seconds=0)
    assert (summary.ending, summary.totals.applied, summary.totals.retries) == (Ending.DRAINED, 3, 0)
    assert {event["verified"] for event in bench.events("change.applied")} == {False}
    assert bench.simulator.all_metadata() == {each: {"grade": "A"} for each in IDS[:3]}


# Answers to other requests


async def test_an_empty_object_is_not_an_answer_and_the_request_is_repeated(bench: Bench) -> None:
    await _seed(bench, ids=IDS[:3])
    bench.simulator.fail_next("empty_object", "status_ok")
    summary = await bench.drain(halt_timeout_seconds=0)
    assert (summary.ending, summary.totals.applied, summary.totals.retries) == (Ending.DRAINED, 3, 2)
    assert bench.simulator.all_metadata() == {each: {"grade": "A"} for each in IDS[:3]}


@pytest.mark.parametrize("kind", ["empty_object", "status_ok", "foreign"])
@pytest.mark.parametrize("operation", ["get", "update"])
async def test_a_service_that_answers_only_empty_objects_halts_the_work(
    bench: Bench, kind: Any, operation: Any
) -> None:
    await _seed(bench)
    bench.simulator.options = replace(bench.simulator.options, faults=(Fault(kind, on=operation),))
    summary = await bench.drain(halt_timeout_seconds=0)
    assert (summary.ending, summary.reason) == (Ending.HALTED, "foreign_answers")
    assert summary.totals.changes == 0
    status = await bench.queue.status()
    assert (status.pending, status.dead) == (len(IDS), 0)


@pytest.mark.parametrize(
    ("code", "reason"), [("insufficient_quota", "quota"), ("invalid_api_key", "unauthorized"), ("x", "foreign_answers")]
)
async def test_an_error_within_a_success_halts_by_its_code(
    bench: Bench, tmp_path: Path, code: str, reason: str
) -> None:
    await _seed(bench, {"kept": "1"})
    bench.simulator.options = replace(bench.simulator.options, faults=(Fault("error_200"),), error_200_code=code)
    summary = await bench.drain(halt_timeout_seconds=0)
    assert (summary.ending, summary.reason) == (Ending.HALTED, reason)
    assert await _is_all_as_it_was(bench, tmp_path, {"kept": "1"})


async def _only_letter(bench: Bench) -> DeadLetter:
    [letter] = await bench.dead()
    return letter
