"""Actions on dead letters affect exactly those that were shown, on every store."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.queue.helpers import bury, changes, letters
from tests.queue.stores import STORES
from tests.web.inside import Inside, a_worker_inside
from worker.queue import PendingSelection, open_queue

TOKEN = "a-token-of-some-length"


@pytest.fixture(params=[*STORES])
async def inside(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Inside]:
    """A worker, on each of the stores: letters 1 to 3 were rejected, 4 and 5 are of completions that are not there."""
    async with STORES[request.param](tmp_path) as url:
        async with open_queue(url) as queue:
            await bury(queue, *changes("c-1", range(3)))
            await bury(queue, *changes("c-2", range(2)), reason="not_found")
        async with a_worker_inside(tmp_path, token=TOKEN, url=url) as inside:
            yield inside


async def _order(inside: Inside, verb: str, **what: Any) -> tuple[int, Any]:
    body = json.dumps(what)
    headers = (
        "Host: 127.0.0.1",
        f"Authorization: Bearer {TOKEN}",
        "Sec-Fetch-Site: same-origin",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    answer = await inside.ask(f"POST /{verb}", *headers, body=body)
    is_json = answer.headers["Content-Type"].startswith("application/json")
    return answer.status, json.loads(answer.body) if is_json else answer.body.decode()


async def _numbers(inside: Inside) -> list[int]:
    return [letter.number for letter in await letters(inside.queue)]


async def test_the_page_says_how_many_letters_there_are_and_up_to_which(inside: Inside) -> None:
    async with inside.events(TOKEN) as documents:
        document = await anext(documents)
    assert document["reasons"] == {"rejected": {"letters": 3, "newest": 3}, "not_found": {"letters": 2, "newest": 5}}


async def test_what_came_after_the_newest_that_was_shown_is_let_be(inside: Inside) -> None:
    with capture_logs() as logs:
        assert await _order(inside, "purge", reason="rejected", newest=2, shown=2) == (200, {"purged": 2})
        assert await _numbers(inside) == [3, 4, 5]
        assert await _order(inside, "purge", all=True, newest=4, shown=3) == (200, {"purged": 2})  # fewer: one has gone
        nothing = {"replayed": 0, "kept": 0, "superseded": 0}
        assert await _order(inside, "replay", all=True, newest=4, shown=9) == (200, nothing)
    assert await _numbers(inside) == [5]
    done = [line for line in logs if line["event"] in {"web.purged", "web.replayed"}]
    assert [(line["peer"], line["newest"], line["letters"]) for line in done] == [
        ("127.0.0.1", 2, 2),
        ("127.0.0.1", 4, 2),
        ("127.0.0.1", 4, 0),
    ]


@pytest.mark.parametrize("verb", ["purge", "replay"])
async def test_more_than_was_shown_is_refused_with_a_sentence(inside: Inside, verb: str) -> None:
    for what, there in ({"reason": "rejected", "newest": 3}, 3), ({"all": True, "newest": 5}, 5):
        status, body = await _order(inside, verb, **what, shown=there - 1)
        assert status == 409
        assert f"there are {there} letters by now, and {there - 1} were shown" in body["error"]
    assert await _numbers(inside) == [1, 2, 3, 4, 5]


async def test_a_letter_is_meant_together_with_its_completion(inside: Inside) -> None:
    gone = {"error": "letter 2 is not there any more"}
    assert await _order(inside, "purge", number=2, completion="c-2") == (409, gone)
    assert await _order(inside, "purge", number=2, completion="c-1") == (200, {"purged": 1})
    assert await _order(inside, "replay", number=2, completion="c-1") == (409, gone)
    assert await _numbers(inside) == [1, 3, 4, 5]


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"all": True},
        {"all": True, "newest": 5},
        {"all": True, "shown": 5},
        {"all": True, "number": 1, "completion": "c-1"},
        {"reason": "rejected"},
        {"reason": "rejected", "all": True, "newest": 5, "shown": 5},
        {"number": 1},
        {"number": 1, "completion": "c-1", "newest": 5, "shown": 5},
        {"all": True, "newest": 5, "shown": 5, "more": 1},
        {"all": True, "newest": "5", "shown": 5},
        {"all": True, "newest": 5.5, "shown": 5},
        {"all": True, "newest": 5, "shown": 5, "completion": "c-1"},
    ],
)
async def test_an_order_that_does_not_say_what_was_shown_is_refused(tmp_path: Path, what: dict[str, Any]) -> None:
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:
        assert (await _order(inside, "purge", **what))[0] == 400


@pytest.mark.parametrize("number", [-1, 0, 2**63, 2**80])
async def test_odd_numbers_mean_no_letter(tmp_path: Path, number: int) -> None:
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:
        status, _ = await _order(inside, "purge", number=number, completion="c-1")
        assert status in {400, 409}
        status, _ = await _order(inside, "purge", all=True, newest=number, shown=max(0, number))
        assert status in {200, 400}


async def test_letters_are_purged_by_their_age(inside: Inside) -> None:
    order = {"all": True, "newest": 5, "shown": 5}

    assert await _order(inside, "purge", **order, older_than_seconds=86_400) == (200, {"purged": 0})
    assert await _numbers(inside) == [1, 2, 3, 4, 5]
    assert await _order(inside, "purge", reason="rejected", newest=5, shown=3, older_than_seconds=0) == (
        200,
        {"purged": 3},
    )
    assert await _numbers(inside) == [4, 5]


@pytest.mark.parametrize("age", [-1, "30d", [], True])
async def test_an_age_that_is_none_is_no_order(inside: Inside, age: object) -> None:
    status, _ = await _order(inside, "purge", all=True, newest=5, shown=5, older_than_seconds=age)

    assert status == 400
    assert await _numbers(inside) == [1, 2, 3, 4, 5]


async def test_the_page_is_told_of_batches_those_that_run_first(inside: Inside) -> None:
    for number in range(30):
        await inside.queue.put([], batch=f"none-{number}")  # nothing comes of nothing
    await inside.queue.put(changes("c-1", range(3)), batch="labels")
    [batch] = await _batches(inside, pending=3)
    assert (batch["name"], batch["changes"], batch["seconds_left"]) == ("labels", 3, None)

    while (await inside.queue.withdraw(PendingSelection(batch="labels"))).in_flight:
        await asyncio.sleep(0.05)
    await inside.queue.put(changes("c-2", range(2)), batch="later")
    running, finished = await _batches(inside, pending=2)
    assert (running["name"], finished["name"]) == ("later", "labels")
    assert (finished["withdrawn"], finished["pending"], finished["seconds_left"]) == (3, 0, 0.0)


async def _batches(inside: Inside, *, pending: int) -> list[dict[str, Any]]:
    """What the page is told of batches, as soon as the first of them has so many changes pending."""
    async with inside.events(TOKEN) as documents:
        async for document in documents:
            if document["batches"] and document["batches"][0]["pending"] == pending:
                found: list[dict[str, Any]] = document["batches"]
                return found
    raise AssertionError("the page ended")


async def test_the_letters_of_a_batch_are_told_apart(inside: Inside) -> None:
    await bury(inside.queue, *changes("c-9", range(2)))
    status, told = await _letters(inside, "batch=none")
    assert (status, told) == (200, {"letters": []})
    status, told = await _letters(inside, "reason=rejected")
    assert {letter["batch"] for letter in told["letters"]} == {None}


async def _letters(inside: Inside, query: str) -> tuple[int, Any]:
    answer = await inside.ask(f"GET /letters?{query}", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}")
    return answer.status, json.loads(answer.body)
