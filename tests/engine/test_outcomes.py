"""The outcomes of changes, one claim at a time."""

import asyncio
from dataclasses import replace

import pytest

from tests.engine.conftest import Bench
from worker.changes import MetadataChange, Mode
from worker.engine import Ending
from worker.queue import DeadSelection
from worker.simulator import Fault, FaultKind

ID = "chatcmpl-1"


async def test_merge_keeps_unnamed_keys_and_removes_null_keys(bench: Bench) -> None:
    bench.simulator.seed(ID, {"draft": "true", "source": "web"})
    await bench.put(ID, {"grade": "A", "draft": None})
    summary = await bench.drain()
    assert bench.simulator.metadata(ID) == {"source": "web", "grade": "A"}
    assert (summary.ending, summary.totals.applied, summary.requests) == (Ending.DRAINED, 1, 2)


async def test_replace_is_one_request_and_leaves_exactly_its_map(bench: Bench) -> None:
    bench.simulator.seed(ID, {"draft": "true"})
    await bench.put(ID, {"grade": "A"}, mode="replace")
    summary = await bench.drain()
    assert bench.simulator.metadata(ID) == {"grade": "A"}
    assert (summary.totals.applied, summary.requests) == (1, 1)


async def test_all_pending_changes_of_a_completion_become_one_update(bench: Bench) -> None:
    bench.simulator.seed(ID)
    await bench.put(ID, {"a": "1"}, {"b": "2"}, {"a": "3"}, {"b": None}, {"c": "4"})
    summary = await bench.drain()
    assert bench.simulator.metadata(ID) == {"a": "3", "c": "4"}
    assert bench.simulator.counters.count("update") == 1
    assert summary.totals.applied == 5
    [event] = bench.events("change.applied")
    assert event["changes"] == 5
    assert set(event["keys"]) == {"a", "b", "c"}


async def test_metadata_that_is_in_place_already_is_not_sent(bench: Bench) -> None:
    bench.simulator.seed(ID, {"grade": "A"})
    await bench.put(ID, {"grade": "A", "draft": None})
    summary = await bench.drain()
    assert (summary.totals.unchanged, bench.simulator.counters.count("update")) == (1, 0)
    assert len(bench.events("change.unchanged")) == 1


async def test_more_than_a_thousand_changes_of_one_completion_are_applied_in_order(bench: Bench) -> None:
    bench.simulator.seed(ID)
    await bench.put(ID, *({"n": str(number)} for number in range(2_300)))
    summary = await bench.drain()
    assert bench.simulator.metadata(ID) == {"n": "2299"}
    assert summary.totals.applied == 2_300
    assert bench.simulator.counters.count("update") == 3


async def test_a_change_that_would_not_fit_dies_alone(bench: Bench) -> None:
    bench.simulator.seed(ID, {f"k{number}": "v" for number in range(15)})
    await bench.put(ID, {"fits": "1"}, {"too": "2", "many": "3"}, {"k0": "changed"})
    summary = await bench.drain()
    assert bench.simulator.metadata(ID)["k0"] == "changed"
    assert "too" not in bench.simulator.metadata(ID)
    [letter] = await bench.dead()
    assert (letter.reason, letter.metadata) == ("too_many_keys", '{"too":"2","many":"3"}')
    assert (summary.totals.applied, summary.totals.dead) == (2, 1)


@pytest.mark.parametrize("mode", ["merge", "replace"])
async def test_a_change_that_is_rejected_takes_no_other_with_it(bench: Bench, mode: Mode) -> None:
    bench.simulator.options = replace(bench.simulator.options, rejected_text="poison")
    bench.simulator.seed(ID, {"kept": "1"})
    await bench.put(ID, {"a": "1"}, {"b": "poison"}, mode=mode)
    await bench.put(ID, {"c": "3"})
    summary = await bench.drain()
    assert bench.simulator.metadata(ID) == {"a": "1", "c": "3"} | ({"kept": "1"} if mode == "merge" else {})
    [letter] = await bench.dead()
    assert (letter.reason, letter.status, letter.attempts) == ("rejected", 400, 0)
    assert letter.request_id
    assert letter.error
    assert "poison" not in letter.error
    assert (summary.totals.applied, summary.totals.dead) == (2, 1)


async def test_a_rejected_change_dies_once_updates_of_others_got_through_since(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, rejected_text="poison")
    bench.simulator.seed(ID)
    await bench.put(ID, {"b": "poison"}, mode="replace")
    await _put_others(bench, 100)
    summary = await bench.drain(max_concurrency=1)
    assert (summary.ending, summary.totals.applied, summary.totals.reasons) == (Ending.DRAINED, 100, {"rejected": 1})
    [letter] = await bench.dead()
    assert (letter.completion_id, letter.status, letter.attempts) == (ID, 400, 0)


async def _put_others(bench: Bench, count: int, *, first: int = 0) -> None:
    ids = [f"other-{number}" for number in range(first, first + count)]
    bench.simulator.seed_completions(ids)
    await bench.queue.put([MetadataChange(each, {"grade": "A"}, "replace") for each in ids])


async def test_a_lone_rejected_change_is_kept_and_the_drain_names_it(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, rejected_text="poison")
    bench.simulator.seed(ID)
    await bench.put(ID, {"b": "poison"}, mode="replace")
    summary = await bench.drain(halt_timeout_seconds=0.3)
    assert (summary.ending, summary.totals.dead) == (Ending.STUCK, 0)
    assert list(summary.left) == [ID]
    assert (await bench.queue.status()).pending == 1


async def test_a_completion_that_is_not_visible_yet_is_waited_for(bench: Bench) -> None:
    bench.simulator.seed(ID, lag_seconds=0.5)
    await bench.put(ID, {"grade": "A"})
    summary = await bench.drain(not_found_grace_seconds=30)
    assert bench.simulator.metadata(ID) == {"grade": "A"}
    assert (summary.totals.applied, summary.totals.dead) == (1, 0)
    assert bench.events("change.applied")[0]["attempt"] == 1  # waiting for it is not a failed attempt


async def test_a_completion_that_is_missing_for_too_long_is_given_up(bench: Bench) -> None:
    await bench.put(ID, {"grade": "A"}, {"grade": "B"})
    summary = await bench.drain(not_found_grace_seconds=0.2)
    assert summary.totals.reasons == {"not_found": 2}
    assert {(letter.reason, letter.status) for letter in await bench.dead()} == {("not_found", 404)}
    assert not (await bench.queue.status()).pending


async def test_a_service_that_merges_halts_until_semantics_is_set(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, semantics="merge")
    for number in range(3):
        bench.simulator.seed(f"chatcmpl-{number}", {"old": "1"})
        await bench.put(f"chatcmpl-{number}", {"new": "2"}, mode="replace")
    summary = await bench.drain(halt_timeout_seconds=0.3)
    assert (summary.ending, summary.reason, summary.totals.applied) == (Ending.HALTED, "service_merges", 0)
    assert (await bench.queue.status()).pending == 3
    [event] = bench.events("worker.halted")
    assert "METASYNC_SEMANTICS" in event["error"]


async def test_under_semantics_merge_leftover_keys_are_logged(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, semantics="merge")
    bench.simulator.seed(ID, {"old": "1"})
    await bench.put(ID, {"new": "2"}, mode="replace")
    summary = await bench.drain(semantics="merge")
    assert summary.totals.applied == 1
    assert bench.events("change.applied")[0]["leftover_keys"] == ("old",)


async def test_an_answer_without_metadata_counts_as_applied_but_unverified(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, show_metadata=False)
    bench.simulator.seed(ID)
    await bench.put(ID, {"new": "2"}, mode="replace")
    assert (await bench.drain()).totals.applied == 1
    assert bench.simulator.metadata(ID) == {"new": "2"}
    assert bench.events("change.applied")[0]["verified"] is False


async def test_a_merge_is_not_sent_if_the_read_hides_the_metadata(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, show_metadata=False)
    ids = [f"chatcmpl-{number}" for number in range(3)]
    for completion_id in ids:
        bench.simulator.seed(completion_id, {"kept": "1"})
        await bench.put(completion_id, {"new": "2"})
    summary = await bench.drain(halt_timeout_seconds=0.3)
    assert (summary.ending, summary.reason, summary.totals.dead) == (Ending.HALTED, "metadata_hidden", 0)
    assert bench.simulator.counters.count("update") == 0
    assert {bench.simulator.metadata(each)["kept"] for each in ids} == {"1"}
    assert (await bench.queue.status()).pending == 3


async def test_a_change_that_fails_while_others_get_through_dies_when_its_attempts_are_used_up(bench: Bench) -> None:
    faults = (Fault("internal_error", on="update", completion_id=ID),)
    bench.simulator.options = replace(bench.simulator.options, faults=faults)
    bench.simulator.seed(ID)
    await bench.put(ID, {"grade": "A"}, mode="replace")
    worker = bench.worker(max_attempts=3, give_up_after_seconds=0.0, drain=False)
    running = asyncio.create_task(worker.run())
    number = 0
    while not await bench.dead():
        await _put_others(bench, 1, first=(number := number + 1))
        await asyncio.sleep(0.01)
    worker.stop()
    summary = await running
    [letter] = await bench.dead()
    assert (letter.completion_id, letter.reason, letter.status) == (ID, "attempts_exhausted", 500)
    assert letter.attempts >= 3  # the changes of one claim are judged together
    assert letter.error is not None
    assert letter.error.startswith("refused alone: ")
    assert summary.totals.reasons == {"attempts_exhausted": 1}
    assert bench.simulator.counters.count("update") >= 4 + summary.totals.applied  # the first failure counts nothing


async def test_a_change_is_kept_when_all_others_fail_too(bench: Bench) -> None:
    bench.simulator.options = replace(bench.simulator.options, faults=(Fault("internal_error"),))
    bench.simulator.seed(ID)
    await bench.put(ID, {"grade": "A"}, mode="replace")
    summary = await bench.drain(max_attempts=1, give_up_after_seconds=0.0, halt_timeout_seconds=0.5)
    assert (summary.ending, summary.totals.dead) == (Ending.OUTAGE, 0)
    assert (await bench.queue.status()).pending == 1
    assert bench.simulator.counters.count("update") > 1


async def test_every_kind_of_passing_fault_is_survived(bench: Bench) -> None:
    faults: tuple[FaultKind, ...] = (
        "internal_error",
        "bad_gateway",
        "overloaded",
        "dropped",
        "cut_off",
        "malformed",
        "empty",
        "bare_string",
    )
    for fault in faults:
        bench.simulator.fail_next(fault, fault)  # not five in a row: that would be an outage
        bench.simulator.seed(ID)
        await bench.put(ID, {"fault": fault}, mode="replace")
        summary = await bench.drain()
        assert (summary.totals.applied, summary.totals.dead) == (1, 0), fault
        assert bench.simulator.metadata(ID) == {"fault": fault}
        # The first drop hits a used connection: the client asks once more, which counts for nothing.
        assert summary.totals.retries == (1 if fault == "dropped" else 2), fault


async def test_a_hanging_request_times_out_and_is_tried_again(bench: Bench) -> None:
    bench.simulator.seed(ID)
    bench.simulator.fail_next("hang")
    await bench.put(ID, {"grade": "A"}, mode="replace")
    summary = await bench.drain(request_timeout_seconds=0.3)
    assert (summary.totals.applied, summary.totals.retries) == (1, 1)


async def test_a_dead_letter_that_is_replayed_is_applied(bench: Bench) -> None:
    await bench.put(ID, {"grade": "A"})
    await bench.drain(not_found_grace_seconds=0)
    bench.simulator.seed(ID)
    assert (await bench.queue.retry_dead(DeadSelection())).retried == 1
    assert (await bench.drain()).totals.applied == 1
    assert bench.simulator.metadata(ID) == {"grade": "A"}
    assert await bench.dead() == []
