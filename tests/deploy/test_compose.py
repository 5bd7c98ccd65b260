"""compose.yaml fits the image, the settings and the commands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.durations import duration_seconds
from config.settings import FIELDS, Settings
from tests.e2e.processes import METASYNC, Command, running_simulator
from worker.cli.verbs import VERBS
from worker.engine.worker import _FLUSH_SECONDS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
_FINISHED = ("service_healthy", "service_completed_successfully")


def test_every_image_has_a_version_and_ours_has_that_of_the_manifests() -> None:
    assert all(re.fullmatch(r"[a-z]+:[\w.-]*\d[\w.-]*", service["image"]) for service in SERVICES.values())
    manifest = (ROOT / "deploy/kubernetes/base/deployment.yaml").read_text()
    assert all(f"image: {service['image']}\n" in manifest for service in OURS.values())


@pytest.mark.parametrize("name", OURS)
def test_a_container_can_do_little(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "user", "pid", "ipc", "cap_add"}
    assert all(volume.endswith(":ro") for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", SERVICES)
def test_every_awaited_condition_exists_and_can_be_met(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        assert wait["condition"] in _FINISHED
        assert ("healthcheck" in SERVICES[other]) == (wait["condition"] == "service_healthy")
    shared = SERVICES[name].get("network_mode", "service:simulator")
    assert shared.removeprefix("service:") in SERVICES
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).is_dir()


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one(name: str) -> None:
    command = OURS[name].get("command", ["run"])
    if "entrypoint" in OURS[name]:
        assert command == []
        return
    assert command[0] in VERBS
    asked = subprocess.run([METASYNC, *command, "--help"], capture_output=True, timeout=60, check=False)
    assert asked.returncode == 0
    assert set(OURS[name].get("environment", {})) <= set(FIELDS)


def test_the_worker_is_served_where_it_is_looked_for_and_has_time_to_stop() -> None:
    worker, simulator = SERVICES["worker"], SERVICES["simulator"]
    port = worker["environment"]["METASYNC_HTTP_PORT"]
    assert simulator["ports"] == [f"127.0.0.1:{port}:{port}"]  # they share a network interface
    at = simulator["command"][simulator["command"].index("--port") + 1]
    assert worker["environment"]["OPENAI_BASE_URL"] == f"http://127.0.0.1:{at}/v1"
    longest = duration_seconds(worker["stop_grace_period"])
    assert isinstance(longest, float)
    assert longest >= Settings.model_fields["shutdown_grace"].default + _FLUSH_SECONDS + 5
    user, database = (SERVICES["postgres"]["environment"][f"POSTGRES_{part}"] for part in ("USER", "DB"))
    password = SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    url = f"postgresql://{user}:{password}@postgres:5432/{database}"
    assert all(OURS[name]["environment"]["METASYNC_QUEUE_URL"] == url for name in ("worker", "enqueue", "migrate"))


def test_what_is_enqueued_is_applied_to_what_is_seeded(tmp_path: Path) -> None:
    flags = list(SERVICES["simulator"]["command"][1:])
    flags[flags.index("--port") + 1] = "0"
    probe = SERVICES["simulator"]["healthcheck"]["test"][1:]
    with running_simulator(*flags) as simulator:
        here = simulator.base_url.removesuffix("/v1")
        for words in (probe, SERVICES["seed"]["entrypoint"]):
            script = words[-1].replace("http://127.0.0.1:8080", here).replace("/examples/", f"{ROOT}/examples/")
            environment = {**os.environ, "http_proxy": "http://127.0.0.1:1"}  # as Docker may give it to every container
            subprocess.run([sys.executable, "-c", script], timeout=60, check=True, env=environment)
        command = Command(tmp_path, {"OPENAI_API_KEY": "sk-simulated", "OPENAI_BASE_URL": simulator.base_url})
        file = SERVICES["enqueue"]["command"][1].replace("/examples", str(ROOT / "examples"))
        assert command.run("enqueue", file).returncode == 0
        simulator.ask("/options", {"update_latency": 0.0, "limit": None})
        done = command.run("run", "--drain", timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
