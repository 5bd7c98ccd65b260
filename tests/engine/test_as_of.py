"""A change that is older than the newest applied one is not sent, and supersedes nothing."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.engine.parts import (
    ID,
    NOT_FOUND,
    OK,
    REJECTED,
    REJECTED_FOR_CERTAIN,
    Calling,
    failed,
)
from tests.engine.virtual import Stage
from tests.virtual import in_virtual_time
from worker.api import Answer
from worker.changes import MetadataChange
from worker.engine.outcome import Outcome
from worker.engine.trials import Trials

A, B, C = '{"label":"a"}', '{"label":"b"}', '{"label":"c"}'
UNSHOWN = Answer(OK, {"label": "something else"})


def _groups(outcome: Outcome) -> dict[str, list[int]]:
    """The numbers of the changes by outcome."""
    groups: dict[str, Sequence[Any]] = {
        "applied": outcome.applied,
        "unchanged": outcome.unchanged,
        "superseded": outcome.superseded,
        "dead": [change for change, _ in outcome.dead],
        "deferred": outcome.deferred,
    }
    return {name: [change.number for change in group] for name, group in groups.items() if group}


@in_virtual_time
@pytest.mark.parametrize("mode", ["replace", "merge"])
async def test_what_is_older_than_all_that_was_applied_costs_no_request(mode: Any) -> None:
    calling = Calling(stored={"label": "new"})
    outcome = await calling.apply(A, B, mode=mode, as_of=[3.0, 4.0], newest=5.0)
    assert _groups(outcome) == {"superseded": [1, 2]}
    assert calling.client.asked_at == []
    assert list(outcome.settlement().superseded) == [1, 2]
    assert (outcome.metadata, outcome.status, outcome.deferral) == (None, None, None)


@in_virtual_time
@pytest.mark.parametrize("mode", ["replace", "merge"])
async def test_what_is_as_old_newer_or_undated_is_sent(mode: Any) -> None:
    calling = Calling()
    outcome = await calling.apply(A, B, C, mode=mode, as_of=[3.0, 5.0, None], newest=5.0)
    assert _groups(outcome) == {"superseded": [1], "applied": [2, 3]}
    assert calling.client.sent == [{"label": "c"}]


@in_virtual_time
@pytest.mark.parametrize(
    ("as_of", "sent", "groups"),
    [
        ([5.0, 3.0], "a", {"applied": [1], "superseded": [2]}),
        ([3.0, 5.0], "b", {"applied": [1, 2]}),
        ([5.0, 5.0], "b", {"applied": [1, 2]}),
        ([None, 3.0], "b", {"applied": [1, 2]}),
        ([5.0, None], "b", {"applied": [1, 2]}),
    ],
)
async def test_within_a_claim_the_one_before_has_to_be_newer(
    as_of: list[float | None], sent: str, groups: dict[str, list[int]]
) -> None:
    calling = Calling()
    assert _groups(await calling.apply(A, B, as_of=as_of)) == groups
    assert calling.client.sent == [{"label": sent}]


@in_virtual_time
async def test_what_the_service_has_already_supersedes_as_well() -> None:
    calling = Calling(stored={"label": "a"})
    outcome = await calling.apply(A, B, mode="merge", as_of=[5.0, 3.0])
    assert _groups(outcome) == {"unchanged": [1], "superseded": [2]}
    assert calling.client.sent == []


@in_virtual_time
async def test_where_the_newer_one_is_rejected_the_older_one_has_its_turn() -> None:
    calling = Calling(REJECTED, REJECTED_FOR_CERTAIN)
    outcome = await calling.apply(A, B, as_of=[5.0, 3.0])
    assert _groups(outcome) == {"dead": [1], "applied": [2]}
    assert calling.client.stored == {"label": "b"}


@in_virtual_time
async def test_where_the_newer_one_may_be_sent_again_both_wait() -> None:
    outcome = await Calling(REJECTED, failed(60.0)).apply(A, B, as_of=[5.0, 3.0])
    assert _groups(outcome) == {"deferred": [1, 2]}
    assert _groups(await Calling(failed(60.0)).apply(A, B, as_of=[5.0, 3.0])) == {"deferred": [1, 2]}


@in_virtual_time
async def test_tried_one_by_one_an_older_one_is_superseded_by_what_went_through() -> None:
    calling = Calling(REJECTED, REJECTED, OK)
    outcome = await calling.apply(A, B, C, as_of=[9.0, 5.0, 3.0])
    assert _groups(outcome) == {"dead": [1], "applied": [2], "superseded": [3]}
    assert calling.client.sent[-1] == {"label": "b"}


@in_virtual_time
async def test_where_the_newer_one_dies_of_what_the_service_shows_the_older_one_has_its_turn() -> None:
    calling = Calling(UNSHOWN)
    outcome = await calling.apply(A, B, as_of=[5.0, 3.0], trials=[Trials(unpersisted=1), Trials()])
    assert _groups(outcome) == {"dead": [1], "applied": [2]}
    assert calling.client.stored == {"label": "b"}


@in_virtual_time
async def test_what_is_over_the_limit_of_pairs_supersedes_nothing() -> None:
    calling = Calling(stored={f"key{number}": "old" for number in range(16)})
    outcome = await calling.apply('{"one too many":"x"}', '{"key0":"x"}', mode="merge", as_of=[5.0, 3.0])
    assert _groups(outcome) == {"dead": [1], "applied": [2]}
    assert calling.client.stored["key0"] == "x"


@in_virtual_time
async def test_an_absence_is_about_all_of_them() -> None:
    calling = Calling(NOT_FOUND)
    outcome = await calling.apply(A, B, as_of=[5.0, 3.0])
    assert [number for number, _ in outcome.trials] == [1, 2]
    calling = Calling(NOT_FOUND, not_found_grace_seconds=0.0)
    met = Trials(absences=5, first_absent_at=1.0)
    assert _groups(await calling.apply(A, B, as_of=[5.0, 3.0], trials=[met, met])) == {"dead": [1, 2]}


@in_virtual_time
@pytest.mark.parametrize("pending", [1, 3, 50])
async def test_an_old_file_that_is_run_again_overwrites_nothing(pending: int) -> None:
    stage = Stage()
    names = [f"chatcmpl-{number}" for number in range(pending)]
    await stage.queue.put([MetadataChange(name, {"label": "new"}, "replace", as_of=200.0) for name in names])
    await stage.drain()
    await stage.queue.put([MetadataChange(name, {"label": "old"}, "replace", as_of=100.0) for name in names], batch="b")
    summary = await stage.drain()
    assert (summary.totals.superseded, summary.totals.changes, summary.requests) == (pending, pending, 0)
    assert {stage.service.stored[name]["label"] for name in names} == {"new"}
    told = stage.events("change.superseded")
    assert [(each["completion_id"], each["changes"], each["batch"]) for each in told] == [
        (each, 1, "b") for each in names
    ]
    [batch] = await stage.queue.batches("b")
    assert (batch.superseded, batch.pending) == (pending, 0)
    assert summary.empty


@in_virtual_time
async def test_without_a_memory_an_old_file_overwrites() -> None:
    stage = Stage()
    for label, as_of in (("new", 200.0), ("old", 100.0)):
        await stage.queue.put([MetadataChange(ID, {"label": label}, "replace", "same", as_of=as_of)])
        await stage.drain(keep_seconds=0.0)
    assert stage.service.stored[ID]["label"] == "old"


@in_virtual_time
async def test_a_change_id_that_was_applied_is_a_duplicate_afterwards() -> None:
    stage = Stage()
    change = MetadataChange(ID, {"label": "new"}, "replace", "same")
    await stage.queue.put([change])
    await stage.drain()
    assert (await stage.queue.put([change])).duplicates == 1


@in_virtual_time
async def test_each_line_of_the_log_names_the_batch_of_its_changes() -> None:
    stage = Stage()
    for label, batch in (("1", "first"), ("2", "first"), ("3", "second"), ("4", None)):
        await stage.queue.put([MetadataChange(ID, {"label": label}, "replace")], batch=batch)
    await stage.drain()
    told = [(each["changes"], each.get("batch")) for each in stage.events("change.applied")]
    assert told == [(2, "first"), (1, "second"), (1, None)]
    assert "batch" not in stage.events("change.applied")[-1]
