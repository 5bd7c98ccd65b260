"""Walking a list while others add and delete."""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.sync.house import Answers, House
from worker.api import Answer, Kind, Verdict
from worker.sync.asking import Unfinished
from worker.sync.listing import Filter


def _ids(count: int, start: int = 0) -> list[str]:
    return [f"chatcmpl-{number:05d}" for number in range(start, start + count)]


def _page(ids: list[str], *, more: bool | None) -> Callable[[Mapping[str, Any]], Answer]:
    body = {"object": "list", "data": [{"id": each, "metadata": {}, "created": 1} for each in ids], "has_more": more}
    return lambda _: Answer(Verdict(Kind.OK, 200), body=json.dumps(body).encode())


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1_000])
async def test_every_completion_comes_once_a_hundred_to_a_request(house: House, count: int) -> None:
    house.simulator.seed_completions(_ids(count))
    assert await house.walk() == _ids(count)
    assert house.requests("list") == max(1, -(-count // 100))


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("seed", range(8))
async def test_a_completion_that_exists_all_the_time_comes_once(house: House, seed: int, order: Any) -> None:
    """All of them have the same second for their time: ties are the rule here."""
    dice = Random(seed)
    house.simulator.seed_completions(_ids(950))
    left = set(_ids(950))

    def change(page: int) -> None:
        house.simulator.seed_completions(_ids(dice.randrange(30), start=10_000 + 100 * page))
        newest = range(100 * (page - 1), 100 * page) if order == "asc" else range(950 - 100 * page, 1050 - 100 * page)
        doomed = [_ids(1, start=number)[0] for number in newest if 0 <= number < 950]
        # The cursor, and more or less of what came just before it.
        dying = doomed[-dice.randrange(1, 60) :] if order == "asc" else doomed[: dice.randrange(1, 60)]
        for each in {*dying, *dice.sample(sorted(left), 20)} & left:
            house.delete(each)
            left.discard(each)

    found = await house.walk(Filter(order=order), between=change)
    assert len(found) == len(set(found))
    assert left <= set(found)


async def test_a_filter_goes_to_the_service(house: House) -> None:
    for number, each in enumerate(_ids(40)):
        house.simulator.seed(each, {"grade": "A" if number % 2 else "B", "n": str(number)})
    assert await house.walk(Filter(metadata={"grade": "A"})) == _ids(40)[1::2]
    assert await house.walk(Filter(metadata={"grade": "A"}, limit=3, order="desc")) == _ids(40)[::-2][:3]
    assert await house.walk(Filter(model="another")) == []


async def test_listed_completions_that_do_not_match_are_left_out(house: House) -> None:
    pages = Answers(_page(_ids(3), more=False))
    assert await house.walk(Filter(metadata={"grade": "A"}), client=pages) == []


async def test_times_are_bounds_and_no_more_is_read_than_they_need() -> None:
    def page(asked: Mapping[str, Any]) -> Answer:
        start = 0 if asked["after"] is None else int(asked["after"].removeprefix("c-")) + 1
        data = [{"id": f"c-{number}", "metadata": {}, "created": number} for number in range(start, start + 100)]
        body = json.dumps({"data": data, "has_more": True}).encode()
        return Answer(Verdict(Kind.OK, 200), body=body)

    pages = Answers(page)
    house = House(None, None)  # type: ignore[arg-type] # nothing is asked of them
    found = await house.walk(Filter(created_after=150, created_before=250), client=pages)
    assert found == [f"c-{number}" for number in range(150, 250)]
    assert len(pages.asked) == 4


@pytest.mark.parametrize(
    "bad",
    [
        lambda _: Answer(Verdict(Kind.OK, 204), unread=True),
        lambda _: Answer(Verdict(Kind.OK, 200), body=b'{"data": [], "has_more": true}'),
        lambda _: Answer(Verdict(Kind.OK, 200), body=b'{"data": [{"metadata": {}}], "has_more": true}'),
        lambda _: Answer(Verdict(Kind.OK, 200), body=b'{"data": ["text"], "has_more": false}'),
        lambda _: Answer(Verdict(Kind.OK, 200), body=b'{"data": {}}'),
        lambda _: Answer(Verdict(Kind.RETRY, 500, error="no")),
    ],
)
async def test_an_invalid_page_is_requested_again_and_does_not_end_the_walk(bad: Any) -> None:
    pages = Answers(_page(_ids(100), more=True), bad, _page(_ids(3, start=100), more=False))
    assert await House(None, None).walk(client=pages) == _ids(103)  # type: ignore[arg-type] # likewise
    assert pages.asked[1]["after"] == pages.asked[2]["after"] == _ids(100)[-1]
    assert [asked["fresh"] for asked in pages.asked] == [False, False, True]


async def test_a_page_that_is_too_large_is_asked_for_in_halves() -> None:
    pages = Answers(lambda _: Answer(Verdict(Kind.OK, 200), unread=True), _page(_ids(2), more=False))
    await House(None, None).walk(client=pages)  # type: ignore[arg-type] # likewise
    assert [asked["limit"] for asked in pages.asked] == [100, 50]


async def test_without_a_word_about_more_the_walk_goes_on_until_nothing_comes() -> None:
    pages = Answers(_page(_ids(20), more=None), _page(_ids(20, start=20), more=None), _page([], more=None))
    assert await House(None, None).walk(client=pages) == _ids(40)  # type: ignore[arg-type] # likewise


async def test_pages_that_go_in_a_circle_halt_and_are_said_so() -> None:
    pages = Answers(_page(_ids(100), more=True))
    with pytest.raises(Unfinished, match="in a circle") as caught:
        await House(None, None).walk(client=pages)  # type: ignore[arg-type] # likewise
    assert caught.value.ending == "halted"


async def test_a_circle_so_wide_that_its_start_is_forgotten_is_known_by_its_cursors() -> None:
    pages = [_page(_ids(100, start=100 * number), more=True) for number in range(4)]
    found: list[str] = []
    with pytest.raises(Unfinished, match="in a circle"):
        await House(None, None).walk(client=Answers(*pages, pages[0]), found=found)  # type: ignore[arg-type] # likewise
    assert found == _ids(400)


async def test_a_service_that_begins_anew_where_the_cursor_is_gone_doubles_nothing() -> None:
    """It forgets one cursor, and heeds the ones before it."""
    everything = _ids(450)

    def answer(asked: Mapping[str, Any]) -> Answer:
        after = asked["after"]
        start = 0 if after in (None, everything[299], everything[298]) else everything.index(after) + 1
        return _page(everything[start : start + 100], more=start + 100 < 450)(asked)

    assert await House(None, None).walk(client=Answers(answer)) == everything  # type: ignore[arg-type] # likewise


async def test_a_filter_that_is_refused_halts_with_the_services_words() -> None:
    pages = Answers(lambda _: Answer(Verdict(Kind.REJECTED, 400, error="HTTP 400: no such filter")))
    with pytest.raises(Unfinished, match="no such filter"):
        await House(None, None).walk(client=pages)  # type: ignore[arg-type] # likewise


async def test_the_official_client_lists_the_same(house: House) -> None:
    for number, each in enumerate(_ids(230)):
        house.simulator.seed(each, {"n": str(number)})
    async with AsyncOpenAI(api_key="sk-test", base_url=house.simulator.base_url) as official:
        theirs = [each.id async for each in official.chat.completions.list(order="asc", limit=100)]
    assert await house.walk() == theirs
