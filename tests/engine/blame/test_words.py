"""How far a single answer is believed: absences, rejections one by one, and metadata that is shown or hidden."""

import asyncio
from typing import Any

import pytest

from tests.engine.blame import replies
from tests.engine.blame.house import House, exit_of
from tests.engine.blame.replies import error, says, shows
from tests.engine.virtual import OK, Request, ids
from tests.virtual import in_virtual_time
from worker.api import Answer
from worker.cli.exits import Exit
from worker.engine import Ending

BAD = "chatcmpl-bad"
ANY = {"kept": "as it was"}


@pytest.mark.parametrize(("drain", "grace_seconds"), [(True, 120.0), (False, 900.0)], ids=["drain", "daemon"])
@in_virtual_time
async def test_an_absent_completion_has_its_grace_from_the_first_404_on(grace_seconds: float, *, drain: bool) -> None:
    house = House()
    await house.put(BAD, *ids(5))
    await asyncio.sleep(7_200.0)  # it has been pending for hours when it is first asked for
    house.service.trouble = says(lambda request: replies.NOT_THERE if request.completion_id == BAD else None)
    began_at = house.now
    worker = house.worker(drain=drain)
    running = asyncio.create_task(worker.run())
    await house.emptied(grace_seconds - 2.0)
    assert (await house.dead(), house.left()) == ([], 1)
    await house.emptied(100.0)
    (letter,) = await house.dead()
    assert (letter.completion_id, letter.reason, letter.status) == (BAD, "not_found", 404)
    assert house.now - began_at >= grace_seconds
    assert sum(request.completion_id == BAD for request in house.service.requests) >= 3
    worker.stop()
    await running


@in_virtual_time
async def test_an_absent_completion_is_asked_for_three_times_although_its_grace_is_over() -> None:
    house = House()
    await house.put(BAD, *ids(5))
    house.service.trouble = says(lambda request: replies.NOT_THERE if request.completion_id == BAD else None)
    summary = await house.drain(not_found_grace_seconds=0.0)
    assert (summary.ending, exit_of(summary)) == (Ending.DRAINED, Exit.NOT_ALL)
    assert sum(request.completion_id == BAD for request in house.service.requests) == 3


@in_virtual_time
async def test_a_completion_that_appears_within_its_grace_is_applied() -> None:
    house = House()
    await house.put(BAD)
    house.service.trouble = says(lambda request: replies.NOT_THERE if request.at < 110.0 else None)
    summary = await house.drain()
    assert (summary.ending, summary.totals.applied, exit_of(summary)) == (Ending.DRAINED, 1, Exit.DONE)


@in_virtual_time
async def test_after_a_rejection_changes_go_one_by_one_in_order_and_only_the_bad_one_dies() -> None:
    house = House()
    for value in ("1", "bad", "3"):
        await house.put(BAD, grade=value)
    weird = error(400, "weird")
    # The three together fold to the last value: first the fold is rejected, then the bad change.
    refused: list[str] = []

    def back(request: Request) -> replies.Back:
        assert request.metadata is not None
        if not refused or request.metadata["grade"] == "bad":
            refused.append(request.metadata["grade"])
            return weird
        return None

    house.service.trouble = says(back)
    summary = await house.drain()
    assert [request.metadata for request in house.service.requests] == [
        {"grade": value} for value in ("3", "1", "bad", "3")
    ]
    assert [(letter.reason, letter.metadata) for letter in await house.dead()] == [("rejected", '{"grade":"bad"}')]
    assert (house.service.stored[BAD], summary.totals.applied) == ({"grade": "3"}, 2)


@in_virtual_time
async def test_one_by_one_stops_at_a_change_that_was_not_persisted() -> None:
    house = House()
    for value in ("1", "2", "3"):
        await house.put(BAD, grade=value)
    answers: list[Any] = [error(400, "weird"), shows({"grade": "old"})]
    house.service.trouble = says(lambda _: answers.pop(0) if answers else None)
    summary = await house.drain(read_lag_seconds=5.0)
    values = [(request.metadata or {})["grade"] for request in house.service.requests]
    assert values[:2] == ["3", "1"]
    assert "2" not in values[2:3]  # the later changes build on the missing one
    assert (house.service.stored[BAD], summary.totals.applied, await house.dead()) == ({"grade": "3"}, 3, [])


@pytest.mark.parametrize("is_fresh", [True])
@in_virtual_time
async def test_a_change_that_was_not_persisted_is_tried_again_on_a_fresh_connection(*, is_fresh: bool) -> None:
    house = House()
    await house.put(BAD, *ids(5))
    house.service.trouble = says(lambda request: shows({"grade": "F"}) if request.completion_id == BAD else None)
    summary = await house.drain()
    tries = [request for request in house.service.requests if request.completion_id == BAD]
    assert [request.fresh for request in tries] == [False, is_fresh]
    assert tries[1].at - tries[0].at >= 60.0
    assert [(letter.completion_id, letter.reason) for letter in await house.dead()] == [(BAD, "not_persisted")]
    assert exit_of(summary) is Exit.NOT_ALL


@pytest.mark.parametrize("pending", [1, 2, 3, 50])
@in_virtual_time
async def test_a_merge_onto_metadata_that_is_not_shown_sends_nothing(pending: int) -> None:
    house = House()
    await house.put(*ids(pending), mode="merge")
    house.service.trouble = says(lambda request: shows(None) if request.operation == "get" else None)
    summary = await house.drain(max_attempts=1, give_up_after_seconds=0.0)
    assert house.service.count("update") == 0
    assert (house.left(), await house.dead()) == (pending, [])
    assert (summary.ending, summary.reason, exit_of(summary)) == (Ending.HALTED, "metadata_hidden", Exit.HALTED)


@pytest.mark.parametrize("shown", [None, {"a": 1, "b": "two"}], ids=["hidden", "not whole"])
@in_virtual_time
async def test_a_completion_that_alone_cannot_be_read_dies_unwritten(shown: dict[str, Any] | None) -> None:
    house = House()
    await house.put(BAD, *ids(200), mode="merge")
    house.service.trouble = says(
        lambda request: shows(shown) if (request.operation, request.completion_id) == ("get", BAD) else None
    )
    async with house.daemon():
        for number in range(10):
            await house.put(f"chatcmpl-later-{number}", mode="merge")
            await asyncio.sleep(60.0)
    assert [(letter.completion_id, letter.reason) for letter in await house.dead()] == [(BAD, "unreadable")]
    assert house.left() == 0
    assert BAD not in {request.completion_id for request in house.service.requests if request.operation == "update"}
    assert not house.events("worker.halted")


@in_virtual_time
async def test_a_removal_that_did_not_happen_is_not_persisted_and_the_error_says_what_helps() -> None:
    house = House()
    house.service.stored[BAD] = {"gone": "x", "grade": "F"}
    await house.put(BAD, mode="merge", gone=None, grade="A")
    await house.put(*ids(5))

    def merges(request: Request) -> Answer | None:
        if request.completion_id != BAD or request.metadata is None:
            return None
        return Answer(OK, {"gone": "x"} | request.metadata)

    house.service.trouble = merges
    summary = await house.drain()
    (letter,) = await house.dead()
    assert (letter.completion_id, letter.reason) == (BAD, "not_persisted")
    assert letter.error is not None
    assert 'keeps gone: set it to "" instead' in letter.error
    assert (summary.totals.applied, exit_of(summary)) == (5, Exit.NOT_ALL)


def _merges(house: House) -> None:
    """A service that keeps what an update does not name."""

    def merge(request: Request) -> Answer | None:
        if request.metadata is None:
            return None
        stored = house.service.stored[request.completion_id]
        stored.update(request.metadata)
        return Answer(OK, dict(stored))

    house.service.trouble = merge


async def _replaced(house: House, pending: int, **options: Any) -> Any:
    for completion_id in ids(pending):
        house.service.stored[completion_id] = dict(ANY)
    await house.put(*ids(pending))
    _merges(house)
    return await house.drain(**options)


@pytest.mark.parametrize("pending", [3, 50])
@in_virtual_time
async def test_under_semantics_unknown_a_service_that_merges_halts_replacements(pending: int) -> None:
    house = House()
    summary = await _replaced(house, pending, max_attempts=1, give_up_after_seconds=0.0)
    assert (summary.ending, summary.reason, exit_of(summary)) == (Ending.HALTED, "service_merges", Exit.HALTED)
    assert (house.left(), await house.dead()) == (pending, [])
    assert house.service.count() < 30


@pytest.mark.parametrize("pending", [1, 2])
@in_virtual_time
async def test_under_semantics_unknown_one_or_two_replacements_with_leftovers_wait(pending: int) -> None:
    house = House()
    summary = await _replaced(house, pending)
    assert (summary.ending, summary.reason, exit_of(summary)) == (Ending.HALTED, "service_merges", Exit.HALTED)
    assert (house.left(), await house.dead()) == (pending, [])
    assert all("METASYNC_SEMANTICS" in why for why in summary.left.values())


@in_virtual_time
async def test_under_semantics_merge_leftovers_are_counted() -> None:
    house = House()
    summary = await _replaced(house, 50, semantics="merge")
    assert (summary.ending, exit_of(summary)) == (Ending.DRAINED, Exit.DONE)
    assert (summary.totals.applied, summary.totals.leftover) == (50, 50)


@in_virtual_time
async def test_under_semantics_replace_leftovers_are_not_persisted() -> None:
    house = House()
    summary = await _replaced(house, 5, semantics="replace")
    assert exit_of(summary) is Exit.NOT_ALL
    assert [letter.reason for letter in await house.dead()] == ["not_persisted"] * 5


@pytest.mark.parametrize("pending", [20, 50])
@in_virtual_time
async def test_values_that_the_service_shows_wrongly_for_all_kill_no_change(pending: int) -> None:
    house = House()
    await house.put(*ids(pending))
    house.service.trouble = says(lambda _: shows({"grade": "F"}))
    summary = await house.drain()
    assert (summary.ending, summary.reason, exit_of(summary)) == (Ending.HALTED, "rejected", Exit.HALTED)
    assert (house.left(), await house.dead()) == (pending, [])


@pytest.mark.parametrize("pending", [1, 3, 50])
@pytest.mark.parametrize("hint", [None, "5"], ids=["no hint", "5 s"])
@in_virtual_time
async def test_a_drain_that_meets_only_429_ends(pending: int, hint: str | None) -> None:
    house = House()
    await house.put(*ids(pending))
    hints = {} if hint is None else {"retry_after": hint}
    house.service.trouble = says(lambda _: error(429, "rate_limit_exceeded", **hints))
    summary = await house.drain()
    assert (summary.ending, exit_of(summary)) == (Ending.CLOSED, Exit.RUN_AGAIN)
    assert (house.left(), house.counted(), await house.dead()) == (pending, 0, [])


@pytest.mark.parametrize("pending", [1, 3, 19])
@in_virtual_time
async def test_an_unclear_404_kills_no_change_unless_another_gets_through_since(pending: int) -> None:
    house = House()
    await house.put("chatcmpl-first")
    worker = house.worker(drain=False, not_found_grace_seconds=0.0)
    running = asyncio.create_task(worker.run())
    await house.emptied(10.0)  # the URL has worked
    house.service.trouble = says(lambda request: error(404, None, "gone fishing") if request.at < 3_600.0 else None)
    await house.put(*ids(pending))
    await asyncio.sleep(3_600.0)
    assert (house.left(), await house.dead()) == (pending, [])
    await house.emptied(100.0)
    assert (worker.totals.applied, await house.dead()) == (pending + 1, [])
    worker.stop()
    await running
