"""The control endpoints, for other processes."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.simulator.http import Clock, Http
from worker.simulator import Answer, Fault, Options, RateLimit, Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(history=5)) as simulator:
        yield simulator


async def test_completions_are_seeded_by_id_by_count_and_one_by_one(simulator: Simulator, http: Http) -> None:
    orders = (
        {"ids": ["chatcmpl-x", "chatcmpl-y"], "metadata": {"a": "1"}},
        {"count": 2, "prefix": "chatcmpl-n-"},
        {"completions": {"chatcmpl-x": {"b": "2"}}},
    )
    seeded = [(await http.control(simulator, "/seed", order)).json() for order in orders]
    assert seeded == [{"seeded": 2}, {"seeded": 2}, {"seeded": 1}]
    assert simulator.all_metadata() == {
        "chatcmpl-x": {"b": "2"},
        "chatcmpl-y": {"a": "1"},
        "chatcmpl-n-000001": {},
        "chatcmpl-n-000002": {},
    }


async def test_a_lag_can_be_given_to_what_is_seeded(http: Http) -> None:
    clock = Clock()
    async with Simulator(clock=clock) as simulator:
        await http.control(simulator, "/seed", {"ids": ["chatcmpl-1"], "lag_seconds": 2})
        assert (await http.get(simulator)).status == 404
        clock.now += 2
        assert (await http.get(simulator)).status == 200


@pytest.mark.parametrize("count", [0, 1, 1_000, 2_500])
async def test_all_metadata_comes_as_one_object(simulator: Simulator, http: Http, count: int) -> None:
    simulator.seed_completions((f"chatcmpl-{number}" for number in range(count)), {"a": 'quo"te, ü'})
    assert (await http.control(simulator, "/metadata")).json() == simulator.all_metadata()
    assert len(simulator.all_metadata()) == count


async def test_the_metadata_and_history_of_one_completion(simulator: Simulator, http: Http) -> None:
    simulator.seed("chatcmpl-1", {"n": "0"})
    await http.update(simulator, metadata={"n": "1"})
    assert (await http.control(simulator, "/metadata/chatcmpl-1")).json() == {"n": "1"}
    assert (await http.control(simulator, "/history/chatcmpl-1")).json() == [{"n": "1"}]
    unknown = await http.control(simulator, "/metadata/chatcmpl-unknown")
    assert (unknown.status, unknown.json()) == (404, {"error": "unknown: chatcmpl-unknown"})


async def test_counters_and_violations_are_told_and_reset(simulator: Simulator, http: Http) -> None:
    simulator.seed("chatcmpl-1")
    simulator.violations.append("chatcmpl-1: two updates in flight at once")
    simulator.fail_next("internal_error")
    for _ in range(3):
        await http.update(simulator, metadata={})
    told = (await http.control(simulator, "/counters")).json()
    assert told == {
        "counters": {
            "requests": {"update": {"500": 1, "200": 2}},
            "updates_applied": 2,
            "throttled": 0,
            "faults": {"internal_error": 1},
            "started_while_closed": 0,
            "overlapping_updates": 0,
            "overlapping_reads": 0,
            "in_flight": 0,
            "in_flight_peak": 1,
        },
        "violations": ["chatcmpl-1: two updates in flight at once"],
        "read_violations": [],
    }
    assert simulator.counters.count() == 3
    assert simulator.counters.count("update") == simulator.counters.count("update", 200) + 1
    assert simulator.counters.count("get") == 0
    after = (await http.control(simulator, "/reset", {})).json()
    assert after["counters"]["requests"] == {}
    assert after["counters"]["updates_applied"] == 0
    assert after["violations"] == []
    assert simulator.history("chatcmpl-1") == []
    assert simulator.metadata("chatcmpl-1") == {}


async def test_switches_are_turned_on_and_off(simulator: Simulator, http: Http) -> None:
    off = {
        "bad_key": False,
        "missing_scope": False,
        "forbidden": False,
        "quota_exhausted": False,
        "outage": None,
    }
    assert (await http.control(simulator, "/switches")).json() == off
    told = (await http.control(simulator, "/switches", {"bad_key": True, "outage": "dropped"})).json()
    assert told == off | {"bad_key": True, "outage": "dropped"}
    assert (simulator.switches.bad_key, simulator.switches.outage) == (True, "dropped")
    assert (await http.control(simulator, "/switches", {"bad_key": False, "outage": None})).json() == off
    assert simulator.switches.outage is None


async def test_options_are_changed_one_by_one(simulator: Simulator, http: Http) -> None:
    simulator.seed("chatcmpl-1", {"a": "1"})
    order = {
        "semantics": "merge",
        "limit": {"requests_per_minute": 600, "hint": "ms"},
        "faults": [
            {"then": "hang", "share": 0.5, "on": "update"},
            {"then": {"status": 418, "headers": {"Via": "a"}, "body": "dGVh"}, "completion_id": "chatcmpl-2"},
        ],
        "update_latency": {"seconds": 1, "up_to_seconds": 2},
    }
    told = (await http.control(simulator, "/options", order)).json()
    assert simulator.options.semantics == told["semantics"] == "merge"
    assert simulator.options.limit == RateLimit(600, hint="ms")
    assert simulator.options.faults == (
        Fault("hang", 0.5, on="update"),
        Fault(Answer(418, b"tea", headers={"Via": "a"}), completion_id="chatcmpl-2"),
    )
    assert simulator.options.history == told["history"] == 5
    await http.control(simulator, "/options", {"limit": None, "faults": []})
    assert simulator.options.limit is None
    assert simulator.options.faults == ()


async def test_the_key_is_not_shown_among_the_options(http: Http) -> None:
    async with Simulator(Options(api_key="sk-secret")) as simulator:
        for reply in (
            await http.control(simulator, "/options"),
            await http.control(simulator, "/options", {"text": "other"}),
        ):
            assert reply.json()["api_key"] == "***"
            assert "sk-secret" not in reply.text
        assert simulator.options.api_key == "sk-secret"


async def test_the_next_requests_can_be_made_to_fail(simulator: Simulator, http: Http) -> None:
    simulator.seed("chatcmpl-1")
    assert (await http.control(simulator, "/fail-next", {"faults": ["bad_gateway", {"status": 418}]})).status == 200
    assert [(await http.update(simulator)).status for _ in range(3)] == [502, 418, 200]
    assert simulator.counters.faults == {"bad_gateway": 1, "answer": 1}


async def test_control_is_free_of_keys_latency_limits_faults_and_outages() -> None:
    options = Options(api_key="sk-other", latency=3_600, limit=RateLimit(1, burst=1), faults=(Fault("hang"),))
    async with Simulator(options) as simulator, aiohttp.ClientSession() as session:
        simulator.switches.outage = "dropped"
        for _ in range(3):
            async with session.get(f"{simulator.control_url}/counters") as response:
                assert (await response.json())["counters"]["requests"] == {}


async def test_the_index_names_every_endpoint(simulator: Simulator, http: Http) -> None:
    index = (await http.control(simulator, "/")).json()
    assert {name for names in index for name in names.split(", ")} == {
        "GET /counters", "POST /reset", "POST /seed", "GET /switches", "POST /switches", "GET /options",
        "POST /options", "POST /fail-next", "GET /metadata", "GET /metadata/ID", "GET /history/ID",
    }  # fmt: skip


BAD_ORDERS = {
    "a seed of something else": ("/seed", {"id": "chatcmpl-1"}, "id"),
    "a seed with a wrong type": ("/seed", {"ids": "chatcmpl-1"}, "ids"),
    "a negative lag": ("/seed", {"ids": [], "lag_seconds": -1}, "lag_seconds"),
    "an unknown switch": ("/switches", {"lights": True}, "lights"),
    "a switch with a wrong type": ("/switches", {"bad_key": "yes"}, "bad_key"),
    "an unknown outage": ("/switches", {"outage": "total"}, "outage"),
    "an unknown option": ("/options", {"speed": 1}, "speed"),
    "a fixed option": ("/options", {"port": 1}, "port"),
    "an unknown field of the limit": ("/options", {"limit": {"requests_per_minute": 1, "per": 2}}, "per"),
    "a limit of nothing": ("/options", {"limit": {"requests_per_minute": 0}}, "requests_per_minute"),
    "an unknown fault": ("/options", {"faults": [{"then": "explosion"}]}, "explosion"),
    "an unknown field of a fault": ("/options", {"faults": [{"then": "hang", "per": 2}]}, "per"),
    "faults that are more than all": ("/options", {"faults": [{"then": "hang"}, {"then": "late"}]}, "shares"),
    "a wrong type": ("/options", {"history": "many"}, "history"),
    "an unknown next fault": ("/fail-next", {"faults": ["explosion"]}, "explosion"),
    "no object": ("/options", [], "object"),
}


@pytest.mark.parametrize(("path", "order", "named"), BAD_ORDERS.values(), ids=BAD_ORDERS.keys())
async def test_an_order_that_makes_no_sense_is_refused_by_name(
    simulator: Simulator, http: Http, path: str, order: object, named: str
) -> None:
    before = simulator.options
    reply = await http.control(simulator, path, order)
    assert reply.status == 400
    assert named in reply.json()["error"]
    assert simulator.options == before
    assert (await http.control(simulator, "/switches")).json()["bad_key"] is False


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b'{"ids":["\xff"]}'])
async def test_an_order_that_is_no_json_is_refused(simulator: Simulator, http: Http, data: bytes) -> None:
    reply = await http.call("POST", f"{simulator.control_url}/seed", data=data)
    assert reply.status == 400
    assert reply.json()["error"]


async def test_an_unknown_endpoint_is_named(simulator: Simulator, http: Http) -> None:
    reply = await http.control(simulator, "/lights", {})
    assert (reply.status, reply.json()) == (404, {"error": "unknown: POST /lights"})
