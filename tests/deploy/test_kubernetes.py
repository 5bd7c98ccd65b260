"""What strangers deploy is valid, and agrees with the code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml

from config.durations import duration_seconds
from config.settings import FIELDS, Settings
from worker.engine.worker import _FLUSH_SECONDS

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
KUBECTL = shutil.which("kubectl")


@pytest.mark.skipif(KUBECTL is None, reason="`kubectl kustomize` renders the manifests, and kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_renders_to_valid_objects(overlay: str) -> None:
    words = [str(KUBECTL), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    rendered = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(rendered))
    kinds = {found["kind"] for found in objects}
    assert len(kinds & {"Deployment", "StatefulSet", "CronJob"}) == 1
    for found in objects:
        kubernetes_validate.validate(found, "1.32", strict=True)


def test_every_variable_that_is_named_is_a_setting() -> None:
    files = [ROOT / "Dockerfile", *KUBERNETES.rglob("*.yaml")]
    named = {name for file in files for name in re.findall(r"\bMETASYNC_[A-Z_]+", file.read_text())}
    assert named <= set(FIELDS)


def test_a_job_ends_by_itself_before_it_is_ended() -> None:
    job = yaml.safe_load((KUBERNETES / "overlays/cronjob/cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    longest = duration_seconds(arguments[arguments.index("--max-duration") + 1])
    assert isinstance(longest, float)
    assert longest + pod["terminationGracePeriodSeconds"] < job["activeDeadlineSeconds"]


@pytest.mark.parametrize(
    "file", ["base/deployment.yaml", "overlays/daemon-sqlite/statefulset.yaml", "overlays/cronjob/cronjob.yaml"]
)
def test_a_pod_has_time_for_its_grace_and_its_last_records(file: str) -> None:
    found = re.search(r"terminationGracePeriodSeconds: (\d+)", (KUBERNETES / file).read_text())
    assert found
    assert int(found[1]) > Settings.model_fields["shutdown_grace"].default + _FLUSH_SECONDS


def test_the_ports_agree() -> None:
    common = (KUBERNETES / "base" / "common.yaml").read_text()
    ports = re.findall(r'METASYNC_HTTP_PORT: "(\d+)"|\bport: (9\d+)', common)
    pods = [KUBERNETES / "base/deployment.yaml", KUBERNETES / "overlays/daemon-sqlite/statefulset.yaml"]
    served = {number for file in pods for number in re.findall(r"containerPort: (\d+)", file.read_text())}
    assert {number for pair in ports for number in pair if number} == served


def test_the_image_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("environment", "well"), [({}, True), ({"METASYNC_HTTP_PORT": "1"}, False)])
def test_the_image_is_well_without_a_port_and_ill_when_its_port_is_silent(
    environment: dict[str, str], *, well: bool
) -> None:
    found = re.search(r'CMD \["python", "-c", "(.+)"\]', (ROOT / "Dockerfile").read_text())
    assert found
    words = [sys.executable, "-c", found[1]]
    done = subprocess.run(words, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode == 0) == well
