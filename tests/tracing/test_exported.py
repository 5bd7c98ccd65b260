"""A real worker and a real collector: exported spans, and the work without a collector."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator, write_changes
from tests.tracing.collector import Collector, attributes, running_collector
from worker.tracing import CLAIM_ATTRIBUTES, REQUEST_ATTRIBUTES

VALUE = "recognisable value"
PASSWORD = "recognisable-password"


def _traced(command: Command, url: str, **more: str) -> Command:
    return replace(command, settings={**command.settings, "OTEL_EXPORTER_OTLP_ENDPOINT": url, **more})


def _apply(command: Command, folder: Path, count: int, **more: Any) -> tuple[int, list[dict[str, Any]]]:
    changes = [
        {"completion_id": f"chatcmpl-{number:06d}", "metadata": {"note": VALUE}, "mode": "replace", **more}
        for number in range(1, count + 1)
    ]
    done = command.run("apply", write_changes(folder / "changes.jsonl", changes), "--not-found-grace", "0")
    assert VALUE not in done.stderr
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def _named(collector: Collector, name: str) -> list[Any]:
    return [span for span in collector.spans() if span.name == name]


def test_a_request_is_its_claims_child_and_the_log_names_both(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/seed", {"count": 3})
    with running_collector() as collector:
        code, lines = _apply(_traced(command, collector.url), tmp_path, 3)
    assert code == 0
    claims = _named(collector, "claim")
    requests = _named(collector, "POST /chat/completions/{completion_id}")
    assert len(claims) == len(requests) == 3
    by_id = {claim.span_id: claim for claim in claims}
    for request in requests:
        parent = by_id[request.parent_span_id]
        assert request.trace_id == parent.trace_id
        shown = attributes(request.attributes)
        assert set(shown) <= set(REQUEST_ATTRIBUTES)
        port = int(simulator.base_url.split(":")[2].split("/")[0])
        completion_id = attributes(parent.attributes)["metasync.completion_id"]
        assert shown == {
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "url.full": f"{simulator.base_url}/chat/completions/{completion_id}",
            "url.template": "/chat/completions/{completion_id}",
            "server.address": "127.0.0.1",
            "server.port": port,
            "metasync.completion_id": completion_id,
        }
    logged = {(line["trace_id"], line["span_id"]) for line in lines if line["event"] == "change.applied"}
    assert logged == {(claim.trace_id.hex(), claim.span_id.hex()) for claim in claims}
    assert all(attributes(claim.attributes)["metasync.outcome"] == "applied" for claim in claims)
    resource = collector.resources()[0]
    assert resource["service.name"] == "metasync"
    assert {"service.version", "service.instance.id"} <= set(resource)


def test_failures_and_resends_show_and_nothing_private_does(tmp_path: Path) -> None:
    faults = ("--fault", "internal_error=0.3", "--fault", "dropped=0.1", "--reject", "recognisable poison")
    with running_simulator("--seed", "3", *faults) as simulator, running_collector() as collector:
        simulator.ask("/seed", {"count": 30})
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
        command = _traced(
            Command(tmp_path, settings),
            collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"x-secret={PASSWORD}",
            OTEL_SERVICE_NAME="another",
        )
        _apply(command, tmp_path, 31)
    assert collector.resources()[0]["service.name"] == "another"
    failed = [span for span in collector.spans() if span.status.code == Status.STATUS_CODE_ERROR]
    kinds = {attributes(span.attributes)["error.type"] for span in failed}
    assert {"500", "404", "not_found"} <= kinds
    assert any(attributes(span.attributes).get("http.request.resend_count", 0) > 0 for span in collector.spans())
    assert {key for span in _named(collector, "claim") for key in attributes(span.attributes)} == set(CLAIM_ATTRIBUTES)
    for body in collector.bodies:
        for secret in (KEY, VALUE, PASSWORD, "recognisable"):
            assert secret.encode() not in body


@pytest.mark.parametrize("collector_state", ["away", "hanging"])
def test_work_goes_on_and_ends_without_a_collector(
    command: Command, simulator: RunningSimulator, tmp_path: Path, collector_state: str
) -> None:
    simulator.ask("/seed", {"count": 40})
    with running_collector(hanging=True) as collector:
        url = collector.url if collector_state == "hanging" else f"http://user:{PASSWORD}@127.0.0.1:1"
        code, lines = _apply(_traced(command, url, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8"), tmp_path, 40)
        assert collector.asked.is_set() == (collector_state == "hanging")
    assert code == 0
    assert sum(line["event"] == "change.applied" for line in lines) == 40
    assert PASSWORD not in json.dumps(lines)
    assert not [line for line in lines if line["event"] == "library.logged"]
    warned = [line["event"] for line in lines if line["event"].startswith("tracing.")]
    assert warned
    assert len(warned) == len(set(warned))


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_nothing_is_traced_when_it_is_off(
    command: Command, simulator: RunningSimulator, tmp_path: Path, off: dict[str, str]
) -> None:
    simulator.ask("/seed", {"count": 1})
    with running_collector() as collector:
        code, lines = _apply(_traced(command, collector.url, **off), tmp_path, 1)
    assert code == 0
    assert not collector.bodies
    assert not [line for line in lines if "trace_id" in line]


def test_a_missing_extra_is_named_and_the_work_done(
    command: Command, simulator: RunningSimulator, tmp_path: Path
) -> None:
    simulator.ask("/seed", {"count": 1})
    (tmp_path / "absent" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "absent" / "opentelemetry" / "__init__.py").write_text("raise ImportError")
    traced = _traced(command, "http://127.0.0.1:1", PYTHONPATH=str(tmp_path / "absent"))
    code, lines = _apply(traced, tmp_path, 1)
    assert code == 0
    assert [line["error"] for line in lines if line["event"] == "tracing.unavailable"] == [
        "install metasync with its extra otel"
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", f"broken {PASSWORD}"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "console"),
    ],
)
def test_a_variable_that_cannot_be_used_stops_no_work_and_leaks_nothing(
    command: Command, simulator: RunningSimulator, tmp_path: Path, variable: str, value: str
) -> None:
    simulator.ask("/seed", {"count": 1})
    with running_collector() as collector:
        code, lines = _apply(_traced(command, collector.url, **{variable: value}), tmp_path, 1)
    assert code == 0
    assert PASSWORD not in json.dumps(lines)
    unavailable = [line["error"] for line in lines if line["event"] == "tracing.unavailable"]
    unsupported = value in {"grpc", "console"}
    assert len(unavailable) == unsupported
    assert bool(collector.bodies) != unsupported
