"""Each kind of fault as the client sees it, and the switches for all requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import get_args

import aiohttp
import pytest

from tests.simulator.http import Http
from worker.simulator import Fault, Options, Simulator
from worker.simulator.faults import KINDS
from worker.simulator.kinds import FAULT_KINDS, FaultKind

BEFORE, AFTER = {"n": "0"}, {"n": "1"}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(seed=1)) as simulator:
        simulator.seed("chatcmpl-1", BEFORE)
        yield simulator


ERRORS = {
    "internal_error": (500, "server_error", None),
    "overloaded": (503, "service_unavailable_error", "server_is_overloaded"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key"),
}


@pytest.mark.parametrize("kind", ["internal_error", "overloaded", "quota", "unauthorized"])
async def test_a_fault_with_an_envelope(simulator: Simulator, http: Http, kind: FaultKind) -> None:
    simulator.fail_next(kind)
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.error["type"], reply.error["code"]) == ERRORS[kind]
    assert reply.headers["x-request-id"].startswith("req_")
    assert "retry-after" not in reply.headers
    assert simulator.metadata("chatcmpl-1") == BEFORE
    assert simulator.counters.faults == {kind: 1}
    assert (await http.update(simulator, metadata=AFTER)).status == 200


async def test_a_bad_gateway_answers_in_html(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("bad_gateway")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html")
    assert reply.text.startswith("<html>")
    assert simulator.metadata("chatcmpl-1") == BEFORE


async def test_an_error_may_be_a_bare_string(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("bare_string")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.json()) == (500, {"error": "Internal server error"})


async def test_a_dropped_connection_leaves_nothing_done(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("dropped")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await http.update(simulator, metadata=AFTER)
    assert simulator.metadata("chatcmpl-1") == BEFORE
    assert simulator.counters.requests == {"update": {0: 1}}


async def test_an_answer_is_cut_off_after_the_update_took_effect(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("cut_off")
    with pytest.raises(aiohttp.ClientPayloadError):
        await http.update(simulator, metadata=AFTER)
    assert simulator.metadata("chatcmpl-1") == AFTER
    assert simulator.counters.requests == {"update": {0: 1}}
    assert simulator.counters.updates_applied == 1


async def test_broken_json_is_answered_after_the_update_took_effect(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("malformed")
    reply = await http.update(simulator, metadata=AFTER)
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()
    assert simulator.metadata("chatcmpl-1") == AFTER


async def test_nothing_is_answered_after_the_update_took_effect(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("empty")
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.text, reply.headers["Content-Length"]) == (200, "", "0")
    assert simulator.metadata("chatcmpl-1") == AFTER


async def test_a_refused_update_is_not_spoiled(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("cut_off")
    assert (await http.update(simulator, "chatcmpl-unknown", AFTER)).status == 404
    assert simulator.counters.faults == {}


async def test_a_hang_lasts_until_the_client_gives_up(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("hang")
    waiting = asyncio.create_task(http.update(simulator, metadata=AFTER))
    await simulator.until(lambda: simulator.counters.faults["hang"] == 1)
    assert simulator.counters.in_flight == 1
    waiting.cancel()
    await simulator.until(lambda: simulator.counters.in_flight == 0)
    assert simulator.metadata("chatcmpl-1") == BEFORE
    assert simulator.counters.requests == {"update": {0: 1}}


async def test_a_hang_ends_when_the_simulator_stops(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("hang")
    waiting = asyncio.create_task(http.update(simulator, metadata=AFTER))
    await simulator.until(lambda: simulator.counters.faults["hang"] == 1)
    await simulator.stop()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await waiting


async def test_shares_say_how_many_requests_go_wrong(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(simulator.options, faults=(Fault("internal_error", 0.25), Fault("bad_gateway", 0.25)))
    statuses = [(await http.get(simulator)).status for _ in range(200)]
    assert 25 < statuses.count(500) < 75
    assert 25 < statuses.count(502) < 75
    assert statuses.count(200) + statuses.count(500) + statuses.count(502) == 200
    assert simulator.counters.faults == {"internal_error": statuses.count(500), "bad_gateway": statuses.count(502)}


async def test_faults_may_spare_all_but_updates(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(simulator.options, faults=(Fault("internal_error", on="update"),))
    assert (await http.get(simulator)).status == 200
    assert (await http.update(simulator)).status == 500


def test_every_kind_of_fault_has_an_answer() -> None:
    assert KINDS.keys() == FAULT_KINDS.keys() == set(get_args(FaultKind))


@pytest.mark.parametrize("name", FAULT_KINDS)
def test_what_a_kind_of_fault_is_said_to_be_tells_whether_the_request_is_carried_out(name: FaultKind) -> None:
    assert FAULT_KINDS[name].startswith("done, ") is KINDS[name].done


async def test_a_request_without_a_key_is_refused(simulator: Simulator, http: Http) -> None:
    for authorization in ("", "Bearer ", "Basic c2s6"):
        reply = await http.get(simulator, headers={"Authorization": authorization})
        assert (reply.status, reply.error["code"]) == (401, None)


async def test_only_the_configured_key_is_good(simulator: Simulator, http: Http) -> None:
    simulator.options = replace(simulator.options, api_key="sk-right-0123456789")
    good = {"Authorization": "Bearer sk-right-0123456789"}
    assert (await http.get(simulator, headers=good)).status == 200
    reply = await http.get(simulator, headers={"Authorization": "Bearer sk-wrong-9876543210"})
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert "sk-wrong***3210" in reply.error["message"]


SWITCHES = {
    "bad_key": (401, "invalid_request_error", "invalid_api_key"),
    "missing_scope": (401, "invalid_request_error", None),
    "forbidden": (403, "request_forbidden", "unsupported_country_region_territory"),
    "quota_exhausted": (429, "insufficient_quota", "credit_balance_exhausted"),
}


@pytest.mark.parametrize("name", SWITCHES)
async def test_a_switch_concerns_every_request_until_it_is_turned_off(
    simulator: Simulator, http: Http, name: str
) -> None:
    simulator.options = replace(simulator.options, quota_code="credit_balance_exhausted")
    setattr(simulator.switches, name, True)
    for reply in (await http.update(simulator, metadata=AFTER), await http.get(simulator, "")):
        assert (reply.status, reply.error["type"], reply.error["code"]) == SWITCHES[name]
        assert "retry-after" not in reply.headers
    assert simulator.metadata("chatcmpl-1") == BEFORE
    setattr(simulator.switches, name, False)
    assert (await http.update(simulator, metadata=AFTER)).status == 200


async def test_an_outage_answers_503_to_all_requests(simulator: Simulator, http: Http) -> None:
    simulator.switches.outage = "overloaded"
    reply = await http.update(simulator, metadata=AFTER)
    assert (reply.status, reply.error["code"]) == (503, "server_is_overloaded")
    simulator.switches.outage = None
    assert (await http.update(simulator, metadata=AFTER)).status == 200
    assert simulator.counters.faults == {}


async def test_an_outage_drops_every_connection(simulator: Simulator, http: Http) -> None:
    simulator.switches.outage = "dropped"
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await http.update(simulator, metadata=AFTER)
    simulator.switches.outage = None
    assert (await http.update(simulator, metadata=AFTER)).status == 200


async def test_a_stopped_simulator_refuses_connections_and_starts_again_as_it_was(http: Http) -> None:
    simulator = Simulator()
    assert "stopped" in repr(simulator)
    async with simulator:
        simulator.seed("chatcmpl-1", BEFORE)
        base_url = simulator.base_url
        assert base_url in repr(simulator)
        assert (await http.update(simulator, metadata=AFTER)).status == 200
        await simulator.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(simulator)
        await simulator.start()
        assert simulator.base_url == base_url
        assert (await http.get(simulator)).json()["metadata"] == AFTER


async def test_an_address_that_is_taken_is_an_error(simulator: Simulator) -> None:
    port = int(simulator.base_url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match=str(port)):
        await Simulator(Options(port=port)).start()


async def test_it_listens_on_ipv6_too(http: Http) -> None:
    async with Simulator(Options(host="::1", completions=1)) as simulator:
        assert simulator.base_url.startswith("http://[::1]:")
        assert (await http.get(simulator, "/chatcmpl-000001")).status == 200
