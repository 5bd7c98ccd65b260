"""Bad requests: status, code and parameter of the service's envelope."""

from collections.abc import AsyncIterator

import pytest

from tests.simulator.http import Clock, Http
from worker.simulator import Options, Simulator

MESSAGES = [{"role": "user", "content": "Write."}]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(rejected_text="unwelcome")) as simulator:
        simulator.seed("chatcmpl-1", {"kept": "1"})
        yield simulator


METADATA_ERRORS = {
    "too many pairs": ({f"k{n}": "v" for n in range(17)}, "object_above_max_properties", "metadata"),
    "long value": ({"k": "v" * 513}, "string_above_max_length", "metadata.k"),
    "long key": ({"k" * 65: "v"}, "property_name_above_max_length", "metadata"),
    "number": ({"k": 1}, "invalid_type", "metadata.k"),
    "null value": ({"k": None}, "invalid_type", "metadata.k"),
    "object value": ({"k": {}}, "invalid_type", "metadata.k"),
    "string": ("text", "invalid_type", "metadata"),
    "array": (["k"], "invalid_type", "metadata"),
    "rule of its own, value": ({"k": "an unwelcome value"}, "invalid_value", "metadata.k"),
    "rule of its own, key": ({"unwelcome": "v"}, "invalid_value", "metadata.unwelcome"),
}


@pytest.mark.parametrize(("metadata", "code", "param"), METADATA_ERRORS.values(), ids=METADATA_ERRORS.keys())
async def test_bad_metadata_is_rejected_and_changes_nothing(
    simulator: Simulator, http: Http, metadata: dict[str, object], code: str, param: str
) -> None:
    reply = await http.update(simulator, "chatcmpl-1", metadata)
    assert reply.status == 400
    assert (reply.error["type"], reply.error["code"], reply.error["param"]) == ("invalid_request_error", code, param)
    assert reply.headers["x-request-id"].startswith("req_")
    assert simulator.metadata("chatcmpl-1") == {"kept": "1"}
    assert simulator.counters.updates_applied == 0


@pytest.mark.parametrize("metadata", [{"k": "Zürich " * 80}, {"k": "an unwelcome value"}], ids=["long", "own rule"])
async def test_a_rejection_quotes_the_value(simulator: Simulator, http: Http, metadata: dict[str, object]) -> None:
    reply = await http.update(simulator, "chatcmpl-1", metadata)
    assert str(metadata["k"]) in reply.error["message"]


async def test_metadata_at_the_limits_is_accepted(simulator: Simulator, http: Http) -> None:
    metadata = {f"{number:064}": "ü" * 512 for number in range(16)}
    assert (await http.update(simulator, "chatcmpl-1", metadata)).json()["metadata"] == metadata


BODY_ERRORS = {
    "empty": (b"", None, None),
    "no JSON": (b"{", None, None),
    "not UTF-8": (b'{"metadata":{"k":"\xff"}}', None, None),
    "bottomless": (b"[" * 100_000, None, None),
    "no object": (b"[]", "invalid_type", None),
    "no metadata": (b"{}", "missing_required_parameter", "metadata"),
    "something else": (b'{"metadata":{},"model":"x"}', "unknown_parameter", "model"),
}


@pytest.mark.parametrize(("data", "code", "param"), BODY_ERRORS.values(), ids=BODY_ERRORS.keys())
async def test_a_bad_body_is_rejected(
    simulator: Simulator, http: Http, data: bytes, code: str | None, param: str | None
) -> None:
    reply = await http.call("POST", f"{simulator.base_url}/chat/completions/chatcmpl-1", data=data)
    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == (code, param)


async def test_a_body_of_another_type_is_rejected(simulator: Simulator, http: Http) -> None:
    reply = await http.update(simulator, "chatcmpl-1", {}, headers={"Content-Type": "text/plain"})
    assert (reply.status, reply.error["code"]) == (400, "unsupported_content_type")


async def test_a_body_over_a_mebibyte_is_rejected(simulator: Simulator, http: Http) -> None:
    reply = await http.update(simulator, "chatcmpl-1", {"k": "v" * 1_048_576})
    assert reply.status == 413
    assert "larger" in reply.error["message"]


async def test_an_unknown_completion_is_not_found_by_any_operation(simulator: Simulator, http: Http) -> None:
    url = f"{simulator.base_url}/chat/completions/chatcmpl-unknown"
    replies = [
        await http.call("POST", url, {"metadata": {}}),
        await http.call("GET", url),
        await http.call("DELETE", url),
        await http.call("GET", f"{url}/messages"),
    ]
    for reply in replies:
        assert reply.status == 404
        assert reply.error == {
            "message": "Completion chatcmpl-unknown not found",
            "type": "invalid_request_error",
            "param": "completion_id",
            "code": "not_found",
        }


@pytest.mark.parametrize("path", ["/v1/chat/completion/x", "/v1/", "/v1/chat/completions/x/y", "/v1/models"])
async def test_an_unknown_url_under_v1_has_an_envelope_of_another_shape(
    simulator: Simulator, http: Http, path: str
) -> None:
    reply = await http.call("POST", simulator.base_url.removesuffix("/v1") + path, {"metadata": {}})
    assert reply.status == 404
    assert (reply.error["code"], reply.error["param"]) == (None, None)
    assert reply.headers["x-request-id"].startswith("req_")


async def test_an_unknown_url_elsewhere_is_a_proxys_page(simulator: Simulator, http: Http) -> None:
    reply = await http.call("GET", simulator.base_url.removesuffix("/v1") + "/v2/chat/completions/chatcmpl-1")
    assert (reply.status, reply.headers["Content-Type"]) == (404, "text/html")
    assert simulator.counters.count("unknown", 404) == 1


@pytest.mark.parametrize("path", ["/openai/v1/models", "/openai/deployments/d/chat/completions/chatcmpl-1"])
async def test_an_unknown_url_of_azures_is_a_resource_that_is_not_found(
    simulator: Simulator, http: Http, path: str
) -> None:
    reply = await http.call("POST", simulator.base_url.removesuffix("/v1") + path, {"metadata": {}})
    assert (reply.status, reply.json()) == (404, {"error": {"code": "404", "message": "Resource not found"}})
    assert "x-request-id" not in reply.headers


async def test_a_method_that_the_url_does_not_know_is_refused(simulator: Simulator, http: Http) -> None:
    reply = await http.call("PUT", f"{simulator.base_url}/chat/completions/chatcmpl-1", {"metadata": {}})
    assert (reply.status, reply.error["code"]) == (405, "method_not_supported")


async def test_an_empty_id_reaches_the_create_call(simulator: Simulator, http: Http) -> None:
    reply = await http.update(simulator, "", {"k": "v"})
    assert (reply.status, simulator.counters.count("create", 400)) == (400, 1)


@pytest.mark.parametrize("prefix", ["/openai/v1", "/openai"])
async def test_azures_paths_and_key_header_are_understood(simulator: Simulator, http: Http, prefix: str) -> None:
    url = f"{simulator.base_url.removesuffix('/v1')}{prefix}/chat/completions/chatcmpl-1?api-version=2024-10-21"
    reply = await http.call("GET", url, headers={"Authorization": "", "api-key": "azure-key"})
    assert (reply.status, reply.json()["metadata"]) == (200, {"kept": "1"})


async def test_a_quoted_id_is_unquoted(simulator: Simulator, http: Http) -> None:
    assert (await http.get(simulator, "/chatcmpl%2D1")).status == 200


async def test_a_deployment_of_azures_creates_a_completion_and_does_nothing_else(
    simulator: Simulator, http: Http
) -> None:
    url = (
        f"{simulator.base_url.removesuffix('/v1')}/openai/deployments/gpt%2D4o/chat/completions?api-version=2024-10-21"
    )
    reply = await http.call("POST", url, {"messages": MESSAGES, "store": True}, headers={"api-key": "azure-key"})
    assert (reply.status, reply.json()["model"]) == (200, "gpt-4o-2024-08-06")
    assert (await http.get(simulator, f"/{reply.json()['id']}")).json()["model"] == "gpt-4o-2024-08-06"
    assert (await http.call("GET", url)).status == 405


async def test_every_answer_of_the_service_tells_how_long_it_took(http: Http) -> None:
    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    async with Simulator(Options(completions=1, latency=0.25), clock=clock, sleep=sleep) as simulator:
        for path, status, took in (("/chatcmpl-000001", 200, "250"), ("/none", 404, "250"), ("/a/b", 404, "0")):
            reply = await http.get(simulator, path)
            assert (reply.status, reply.headers["openai-processing-ms"]) == (status, took)


LIST_ERRORS = {
    "limit=0": ("limit", "integer_below_min_value"),
    "limit=101": ("limit", "integer_above_max_value"),
    "limit=many": ("limit", "invalid_type"),
    "order=up": ("order", "invalid_value"),
    "after=chatcmpl-unknown": ("after", "invalid_value"),
}


@pytest.mark.parametrize("path", ["", "/chatcmpl-1/messages"])
@pytest.mark.parametrize("query", LIST_ERRORS)
async def test_a_bad_list_query_is_rejected(simulator: Simulator, http: Http, path: str, query: str) -> None:
    reply = await http.get(simulator, f"{path}?{query}")
    assert (reply.status, reply.error["param"], reply.error["code"]) == (400, *LIST_ERRORS[query])


CREATE_ERRORS = {
    "no model": ({"messages": MESSAGES}, None, None),
    "no messages": ({"model": "m"}, "messages", "missing_required_parameter"),
    "model of a wrong type": ({"model": 1, "messages": MESSAGES}, "model", "invalid_type"),
    "messages of a wrong type": ({"model": "m", "messages": "Write."}, "messages", "invalid_type"),
    "message of a wrong type": ({"model": "m", "messages": ["Write."]}, "messages[0]", "invalid_type"),
    "empty messages": ({"model": "m", "messages": []}, "messages", "empty_array"),
    "too many choices": ({"model": "m", "messages": MESSAGES, "n": 129}, "n", "invalid_value"),
    "stream of a wrong type": ({"model": "m", "messages": MESSAGES, "stream": 1}, "stream", "invalid_type"),
    "metadata without store": ({"model": "m", "messages": MESSAGES, "metadata": {"k": "v"}}, "metadata", None),
    "bad metadata": ({"model": "m", "messages": MESSAGES, "store": True, "metadata": 1}, "metadata", "invalid_type"),
}


@pytest.mark.parametrize(("body", "param", "code"), CREATE_ERRORS.values(), ids=CREATE_ERRORS.keys())
async def test_a_bad_create_is_rejected(
    simulator: Simulator, http: Http, body: dict[str, object], param: str | None, code: str | None
) -> None:
    reply = await http.call("POST", f"{simulator.base_url}/chat/completions", body)
    assert (reply.status, reply.error["param"], reply.error["code"]) == (400, param, code)
    assert list(simulator.all_metadata()) == ["chatcmpl-1"]
