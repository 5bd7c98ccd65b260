"""Answers of gateways and firewalls: which requests get them, and what is done anyway."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.simulator.http import Clock, Http
from worker.simulator import Answer, Fault, FaultKind, Options, Simulator

BEFORE, AFTER = {"n": "0"}, {"n": "1"}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(seed=1)) as simulator:
        simulator.seed("chatcmpl-1", BEFORE)
        yield simulator


PAGES: dict[FaultKind, int] = {
    "bad_gateway": 502,
    "html_400": 400,
    "html_403": 403,
    "html_404": 404,
    "misdirected": 421,
    "proxy_auth": 407,
}


@pytest.mark.parametrize("kind", PAGES)
async def test_a_page_of_something_in_front_of_the_service(simulator: Simulator, http: Http, kind: FaultKind) -> None:
    simulator.fail_next(kind)
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.headers["Content-Type"]) == (PAGES[kind], "text/html")
    assert f"<title>{PAGES[kind]} " in reply.text
    assert not {"x-request-id", "openai-processing-ms"} & {name.lower() for name in reply.headers}
    assert ("proxy-authenticate" in reply.headers) == (kind == "proxy_auth")
    assert simulator.metadata("chatcmpl-1") == BEFORE
    assert simulator.counters.requests == {"update": {PAGES[kind]: 1}}


ODD: dict[FaultKind, tuple[int, Any]] = {
    "empty_object": (200, {}),
    "status_ok": (200, {"status": "ok"}),
    "bare_404": (404, {"detail": "Not Found"}),
    "wrapped_404": (404, {"error": {"message": "upstream: Completion chatcmpl-1 not found", "code": "404"}}),
}


@pytest.mark.parametrize("kind", ODD)
async def test_json_that_is_not_the_services(simulator: Simulator, http: Http, kind: FaultKind) -> None:
    simulator.fail_next(kind)
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.json()) == ODD[kind]
    assert "x-request-id" not in reply.headers
    assert simulator.metadata("chatcmpl-1") == BEFORE


async def test_an_error_may_come_as_a_200_with_the_code_that_was_ordered(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(simulator.options, error_200_code="slow_down")
    simulator.fail_next("error_200")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.error["code"]) == (200, "slow_down")
    assert simulator.metadata("chatcmpl-1") == BEFORE


async def test_a_stray_403_has_the_services_envelope(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("forbidden")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.error["type"]) == (403, "request_forbidden")


async def test_a_204_comes_after_the_update_took_effect(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("no_content")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.text) == (204, "")
    assert simulator.metadata("chatcmpl-1") == AFTER


@pytest.mark.parametrize("path", ["/chatcmpl-1", "/chatcmpl-2"])
async def test_the_object_of_another_completion_is_answered(simulator: Simulator, http: Http, path: str) -> None:
    simulator.seed("chatcmpl-2", {"other": "1"})
    simulator.fail_next("foreign")
    shown = (await http.get(simulator, path)).json()
    other = "chatcmpl-2" if path == "/chatcmpl-1" else "chatcmpl-1"
    assert (shown["id"], shown["metadata"]) == (other, simulator.metadata(other))
    assert shown["object"] == "chat.completion"


async def test_the_only_completion_is_answered_with_one_that_is_nowhere(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("foreign")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.json()["object"]) == (200, "chat.completion")
    assert reply.json()["id"] not in simulator.all_metadata()
    assert simulator.metadata("chatcmpl-1") == AFTER


async def test_metadata_is_hidden_from_gets_alone(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(
        simulator.options, faults=(Fault("hidden_metadata", on="get"), Fault("hidden_metadata", on="list"))
    )
    assert (await http.update(simulator, metadata=AFTER)).json()["metadata"] == AFTER
    shown = (await http.get(simulator)).json()
    assert (shown["id"], "metadata" in shown) == ("chatcmpl-1", False)
    [listed] = (await http.get(simulator, "")).json()["data"]
    assert (listed["id"], "metadata" in listed) == ("chatcmpl-1", False)


async def test_a_late_answer_is_that_of_an_update_that_took_effect_at_once(http: Http) -> None:
    waits: asyncio.Queue[float] = asyncio.Queue()
    go_on = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.put_nowait(seconds)
        await go_on.wait()

    async with Simulator(Options(late_seconds=30), sleep=sleep) as simulator:
        simulator.seed("chatcmpl-1", BEFORE)
        simulator.fail_next("late")
        waiting = asyncio.create_task(http.update(simulator, metadata=AFTER))
        assert await waits.get() == 30
        assert simulator.counters.faults == {"late": 1}
        assert simulator.metadata("chatcmpl-1") == AFTER
        go_on.set()
        assert (await waiting).json()["metadata"] == AFTER


async def test_a_firewall_stops_a_value_that_it_dislikes(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(simulator.options, faults=(Fault("html_403", holds="drop table"),))
    stopped = await http.update(simulator, metadata={"n": "; drop table users"})
    assert (stopped.status, stopped.headers["Content-Type"]) == (403, "text/html")
    assert simulator.metadata("chatcmpl-1") == BEFORE
    assert (await http.update(simulator, metadata={"drop table": "1"})).status == 200
    assert (await http.get(simulator)).status == 200


async def test_a_poisoned_completion_is_answered_by_the_same_status_always(simulator: Simulator, http: Http) -> None:
    simulator.seed("chatcmpl-2")
    simulator.options = replace(simulator.options, faults=(Fault(Answer(500), completion_id="chatcmpl-1"),))
    assert [(await http.update(simulator)).status for _ in range(3)] == [500] * 3
    assert (await http.get(simulator)).status == 500
    assert (await http.update(simulator, "chatcmpl-2")).status == 200
    assert simulator.counters.faults == {"answer": 4}


async def test_an_answer_of_ones_own_is_sent_as_it_is(simulator: Simulator, http: Http) -> None:
    answer = Answer(418, b"\xff\x00", content_type="application/x-tea", headers={"Via": "1.1 pot", "X-Request-Id": "r"})
    simulator.fail_next(answer, Fault(Answer(418), done=True))
    url, key = f"{simulator.base_url}/chat/completions/chatcmpl-1", {"Authorization": "Bearer k"}
    async with aiohttp.request("POST", url, json={"metadata": AFTER}, headers=key) as response:
        assert (response.status, await response.read()) == (418, b"\xff\x00")
        assert response.headers["Content-Type"] == "application/x-tea"
        assert response.headers.getall("Via") == ["1.1 pot"]
        assert response.headers.getall("X-Request-Id") == ["r"]
    assert simulator.metadata("chatcmpl-1") == BEFORE
    assert (await http.update(simulator, metadata=AFTER)).status == 418
    assert simulator.metadata("chatcmpl-1") == AFTER


async def test_a_client_that_was_told_to_wait_is_held_to_it(http: Http) -> None:
    clock = Clock()
    async with Simulator(Options(closed_grace_seconds=0), clock=clock) as simulator:
        simulator.seed("chatcmpl-1")
        simulator.fail_next(Answer(503, headers={"retry-after": "5"}))
        for passed, held in ((0, 0), (4.9, 1), (0.2, 1)):
            clock.now += passed
            await http.update(simulator)
            assert simulator.counters.started_while_closed == held


async def test_what_one_fault_leaves_is_the_next_ones(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(
        simulator.options, faults=(Fault("internal_error", 0.5, on="update"), Fault("html_404", 0.5))
    )
    updates = [(await http.update(simulator)).status for _ in range(100)]
    gets = [(await http.get(simulator)).status for _ in range(100)]
    assert set(updates) == {500, 404}
    assert set(gets) == {200, 404}
    assert 30 < updates.count(500) < 70
    assert 30 < gets.count(200) < 70
