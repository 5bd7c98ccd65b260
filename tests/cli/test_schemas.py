"""The output of `--json` matches the published schemas."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.processes import KEY, Command, running_simulator, stopped, wait_for_event, write_changes
from tests.log_lines import read_line

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command printed, by the name of its schema, in one story: a queue with dead letters and a worker."""
    folder = tmp_path_factory.mktemp("outputs")
    printed: dict[str, Any] = {}
    with running_simulator("--completions", "2") as simulator:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url, "METASYNC_LOG_FORMAT": "json"}
        command = replace(Command(folder, {}), settings=settings)

        def run(*words: str) -> Any:
            done = command.run(*words, "--json")
            printed["log"] = printed.get("log", []) + [line for line in done.stderr.splitlines() if line[0] == "{"]
            return json.loads(done.stdout)

        one: dict[str, Any] = {"completion_id": "chatcmpl-000001", "metadata": {"g": "A"}, "change_id": "c1"}
        lines = [one, one, one | {"change_id": None}]
        printed["enqueue"] = run("enqueue", write_changes(folder / "good.jsonl", lines))
        lines = [{"completion_id": f"chatcmpl-none{n}", "metadata": {"g": None}} for n in range(3)]
        (folder / "some.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "nonsense\n")
        printed["apply"] = run("apply", "some.jsonl", "--not-found-grace", "0", "--results", "results.jsonl")
        printed["results"] = json.loads((folder / "results.jsonl").read_text().splitlines()[0])
        printed["pull"] = run("pull", "-o", "pulled.jsonl", "--of", "some.jsonl")
        change = {"completion_id": "chatcmpl-000002", "metadata": {"set": "A"}}
        differing = write_changes(folder / "differing.jsonl", [change])
        printed["diff"] = run("diff", differing, "--read-lag", "0")
        printed["diff-summary"] = run("diff", "some.jsonl", "--read-lag", "0", "--summary")
        printed["dead-list"] = run("dead", "list")
        number = str(printed["dead-list"][0]["id"])
        printed["dead-show"] = run("dead", "show", number)
        printed["dead-retry"] = run("dead", "retry", number)
        simulator.ask("/switches", {"bad_key": True})
        with stopped(command.start("run")) as process:
            wait_for_event(process, "worker.halted")
            while not any((printed := printed | {"status": run("status")})["status"]["workers"].values()):
                pass
            process.send_signal(signal.SIGTERM)
            printed["log"] += process.communicate(timeout=20)[1].decode().splitlines()
        printed["dead-purge"] = run("dead", "purge", "--all")
        words = ("enqueue", differing, "--batch", "spring", "--as-of", "1764324900")
        printed["enqueue-wait"] = run(*words, "--wait", "--timeout", "0")
        printed["pending-list"] = run("pending", "list", "--batch", "spring")
        printed["batch-wait"] = run("batch", "wait", "spring", "--timeout", "0")
        printed["batch-withdraw"] = run("batch", "withdraw", "spring", "--yes")
        printed["pending-withdraw"] = run("pending", "withdraw", "--batch", "spring", "--yes")
        printed["batch-list"] = run("batch", "list")
        printed["batch-show"] = run("batch", "show", "spring")
        printed["doctor"] = run("doctor")
        printed["settings"] = run("settings", "--lease", "10m")
    return printed


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return schema


def _fields(output: Any) -> dict[str, Any]:
    """The fields of what stands in the output, or of the first of what stands there."""
    fields: dict[str, Any] = output[0] if isinstance(output, list) else output.get("METASYNC_LEASE", output)
    return fields


def test_every_schema_has_an_output_that_it_is_held_against(outputs: dict[str, Any]) -> None:
    assert {path.stem for path in SCHEMAS.iterdir()} == set(outputs)
    assert len(outputs["dead-list"]) == 3
    assert (outputs["apply"]["reasons"], outputs["apply"]["exit_code"]) == ({"not_found": 3}, 3)
    assert (outputs["pull"]["not_found"], outputs["pull"]["exit_code"]) == (3, 3)
    assert (outputs["diff"]["state"], outputs["diff"]["set"]) == ("differs", {"set": "A"})
    assert (outputs["diff-summary"]["not_found"], outputs["diff-summary"]["refused_lines"]) == (3, 1)
    retried = {"retried": 1, "kept": 0, "superseded": 0, "superseded_numbers": []}
    assert (outputs["dead-retry"], outputs["dead-purge"]) == (retried, {"purged": 2})
    assert (outputs["enqueue-wait"]["exit_code"], outputs["batch-wait"]["ending"]) == (75, "timeout")
    assert [outputs[f"{verb}-withdraw"]["withdrawn"] for verb in ("batch", "pending")] == [1, 0]


@pytest.mark.parametrize("name", sorted(path.stem for path in SCHEMAS.iterdir() if path.stem != "log"))
def test_an_output_is_what_its_schema_says_and_no_field_of_it_may_be_missing(
    name: str, outputs: dict[str, Any]
) -> None:
    schema = _schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(outputs[name])] == []
    for field in (part := _fields(outputs[name])):
        without = {key: value for key, value in part.items() if key != field}
        for changed in (without, without | {f"{field}_": part[field]}):
            shaped = [changed] if isinstance(outputs[name], list) else changed
            assert not validator.is_valid({"X": shaped} if name == "settings" else shaped), field


def test_a_schema_says_of_each_field_of_a_worker_what_it_is(outputs: dict[str, Any]) -> None:
    definitions = _schema("status")["$defs"]
    (worker,) = outputs["status"]["workers"].values()
    assert set(definitions["FlowState"]["required"]) == set(worker)
    assert "lease" in definitions["Report"]["properties"]["in_flight"]["description"]


def test_a_line_of_the_log_is_what_the_schema_says_and_nothing_else(outputs: dict[str, Any]) -> None:
    schema = _schema("log")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    events = [read_line(line) for line in outputs["log"]]
    assert {event["event"] for event in events} >= {"worker.started", "change.dead_lettered", "run.summary"}
    for event in events:
        assert validator.is_valid(event)
        assert not validator.is_valid(event | {"another": 1})
        assert not validator.is_valid(event | {"event": "another.one"})
        assert not validator.is_valid(event | {"level": 20})
    (summary, *_) = (event for event in events if event["event"] == "run.summary")
    for field in summary:
        assert not validator.is_valid({name: value for name, value in summary.items() if name != field}), field
