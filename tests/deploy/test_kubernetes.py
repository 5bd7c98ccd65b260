"""The Kubernetes manifests are valid, and agree with the code."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import msgspec
import pytest
import yaml

from config.durations import duration_seconds
from config.settings import FIELDS, Settings, default_text
from tests.deploy.custom_kinds import CUSTOM_KINDS
from tests.deploy.kubelet import service_links
from tests.deploy.rendering import COMPONENTS, KUBERNETES, OVERLAYS, ROOT, pod_of, rendered
from tests.e2e.processes import KEY, Command, stopped, wait_for_event
from tests.queue.postgres_server import new_database
from worker import MetadataChange, open_queue
from worker.cli.exits import Exit
from worker.engine.worker import _FLUSH_SECONDS

# As docs/deploying.md says which goes with which.
TOGETHER = [
    *((overlay,) for overlay in OVERLAYS),
    ("daemon-sqlite", "prometheus-rule", "service-monitor"),
    ("daemon-postgres", *COMPONENTS),
]


@pytest.mark.parametrize("parts", TOGETHER, ids="+".join)
def test_rendered_manifests_are_valid(parts: tuple[str, ...]) -> None:
    objects = rendered(*parts)
    assert len(objects.keys() & {"Deployment", "StatefulSet", "CronJob"}) == 1
    for kind, found in objects.items():
        if kind in CUSTOM_KINDS:
            msgspec.convert(found, CUSTOM_KINDS[kind])
        else:
            kubernetes_validate.validate(found, "1.32", strict=True)


def test_every_variable_that_is_named_is_a_setting() -> None:
    files = [ROOT / "Dockerfile", ROOT / "compose.yaml", *KUBERNETES.rglob("*.yaml")]
    named = {name for file in files for name in re.findall(r"\b(?:METASYNC|OPENAI)_[A-Z_]+", file.read_text())}
    assert named <= set(FIELDS)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_meets_the_restricted_profile_and_reads_its_secrets_from_files(overlay: str) -> None:
    objects = rendered(overlay)
    pod = pod_of(objects)
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    assert (pod["automountServiceAccountToken"], objects["ServiceAccount"]["automountServiceAccountToken"]) == (
        False,
        False,
    )
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["secrets"] == objects["ConfigMap"]["data"]["METASYNC_SECRETS_DIR"]
    assert "env" not in container


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_for_its_grace_and_its_last_records(overlay: str) -> None:
    objects = rendered(overlay)
    pod = pod_of(objects)
    grace = duration_seconds(objects["ConfigMap"]["data"]["METASYNC_SHUTDOWN_GRACE"])
    assert isinstance(grace, float)
    assert grace == Settings.model_fields["shutdown_grace"].default
    assert pod["terminationGracePeriodSeconds"] >= grace + _FLUSH_SECONDS + 5  # seconds of margin
    assert "lifecycle" not in pod["containers"][0]  # a wait before SIGTERM would shorten the grace


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay.startswith("daemon-")])
def test_the_ports_and_paths_of_a_daemon_agree(overlay: str) -> None:
    objects = rendered(overlay)
    (container,) = pod_of(objects)["containers"]
    port = int(objects["ConfigMap"]["data"]["METASYNC_HTTP_PORT"])
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    assert [found["port"] for found in objects["Service"]["spec"]["ports"]] == [port]
    assert objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def _services(objects: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The Services that a pod may find in its namespace: those that are rendered, and others whose names begin so."""
    rendered_service = objects.get("Service")
    if rendered_service is not None:
        yield rendered_service["metadata"]["name"], rendered_service["spec"]["ports"]
    for name in ("metasync-http", "metasync-queue-url", "metasync"):
        yield name, [{"name": "http", "port": 80}, {"name": "grpc-web", "port": 9464}, {"port": 53, "protocol": "UDP"}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_command_starts_with_any_service_variables_of_the_kubelet(overlay: str, tmp_path: Path) -> None:
    objects = rendered(overlay)
    pod = pod_of(objects)
    assert pod["enableServiceLinks"] is False
    told = {key: value for service in _services(objects) for key, value in service_links(*service).items()}
    assert told["METASYNC_HTTP_PORT"].startswith("tcp://")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "OPENAI_API_KEY").write_text(KEY)
    (secrets / "METASYNC_HTTP_TOKEN").write_text("a-token-of-some-length")
    (secrets / "METASYNC_INTAKE_TOKEN").write_text("another-token-of-some-length")
    (secrets / "METASYNC_HTTP_PORT").write_text("0")
    (secrets / "METASYNC_QUEUE_URL").write_text(f"sqlite:///{tmp_path}/metasync.db")
    settings = {
        **{name: value for name, value in objects["ConfigMap"]["data"].items() if name != "METASYNC_QUEUE_URL"},
        "METASYNC_SECRETS_DIR": str(secrets),
        **told,  # in place of the port: both could differ
    }
    with stopped(Command(tmp_path, settings).start(*pod["containers"][0]["args"])) as process:
        if overlay != "cronjob":
            wait_for_event(process, "web.started" if overlay == "intake" else "worker.started")
            process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log.decode()


def _set_by_the_image() -> dict[str, str]:
    """Our variables among those that the image sets, which a container starts with."""
    return dict(re.findall(r"\b((?:METASYNC|OPENAI)_[A-Z_]+)=([^\s\"]+)", (ROOT / "Dockerfile").read_text()))


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay != "daemon-sqlite"])
def test_the_queue_is_that_of_the_secret_and_a_pod_makes_none_of_its_own(overlay: str, tmp_path: Path) -> None:
    objects = rendered(overlay)
    (container,) = pod_of(objects)["containers"]
    (tmp_path / "METASYNC_QUEUE_URL").write_text("postgresql://db.example.com/app\n")
    settings = _set_by_the_image() | objects["ConfigMap"]["data"] | {"METASYNC_SECRETS_DIR": str(tmp_path)}
    shown = json.loads(Command(tmp_path, settings).run("settings", "--json").stdout)
    assert shown["METASYNC_QUEUE_URL"]["value"] == "postgresql://db.example.com/app"
    assert default_text("queue_url") == "sqlite:///metasync.db"  # in the working directory, where none can be made
    assert container["workingDir"] == "/"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_an_intake_has_a_secret_and_a_service_of_its_own_that_no_workers_are_behind() -> None:
    objects, workers = rendered("intake"), rendered("daemon-postgres")
    pod = pod_of(objects)
    (container,) = pod["containers"]
    (volume,) = pod["volumes"]
    assert container["args"] == ["intake"]
    assert volume["secret"]["secretName"] == "metasync-intake"
    assert pod["enableServiceLinks"] is False
    for each, others in ((objects, workers), (workers, objects)):
        selector = each["Service"]["spec"]["selector"].items()
        assert selector <= each["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
        assert not selector <= others["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
        assert each["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= selector
    assert not objects.keys() & {"Secret"}
    names = {found["metadata"]["name"] for found in objects.values()}
    assert names == {"metasync-intake"}


def test_a_sqlite_queue_has_one_worker_and_a_volume() -> None:
    objects = rendered("daemon-sqlite")
    stateful = objects["StatefulSet"]["spec"]
    (claim,) = stateful["volumeClaimTemplates"]
    (container,) = pod_of(objects)["containers"]
    (folder,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == claim["metadata"]["name"]]
    assert stateful["replicas"] == 1
    assert objects["ConfigMap"]["data"]["METASYNC_QUEUE_URL"].startswith(f"sqlite:///{folder}/")


def test_a_job_ends_by_itself_before_it_is_ended() -> None:
    objects = rendered("cronjob")
    pod = pod_of(objects)
    arguments = pod["containers"][0]["args"]
    longest = duration_seconds(arguments[arguments.index("--max-duration") + 1])
    assert isinstance(longest, float)
    deadline = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert longest + pod["terminationGracePeriodSeconds"] < deadline


def test_a_job_fails_at_once_where_another_try_would_not_help() -> None:
    cron = rendered("cronjob")["CronJob"]["spec"]
    job = cron["jobTemplate"]["spec"]
    assert (cron["concurrencyPolicy"], job["backoffLimit"]) == ("Forbid", 1)
    assert cron["startingDeadlineSeconds"] > 10  # with less, the controller may never start one
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # without which the policy has no say
    fail, ignore = job["podFailurePolicy"]["rules"]
    codes = fail["onExitCodes"]
    assert (fail["action"], codes["operator"], codes["values"]) == ("FailJob", "In", [Exit.USAGE, Exit.HALTED])
    assert codes["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_the_workers_are_scaled_by_due_work_and_to_two_at_most() -> None:
    objects = rendered("daemon-postgres", "keda")
    scaled = objects["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    assert "replicas" not in objects["Deployment"]["spec"]  # two that set it would fight
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 2)


async def test_what_is_claimed_asks_for_no_further_worker() -> None:
    (trigger,) = rendered("daemon-postgres", "keda")["ScaledObject"]["spec"]["triggers"]
    async with new_database() as url, open_queue(url) as queue:
        await queue.put([MetadataChange(f"chatcmpl-{number}", {"grade": "A"}) for number in range(5)])
        await queue.claim(2, lease_seconds=60, owner="test")
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval(trigger["metadata"]["query"]) == 3
        finally:
            await connection.close()


def test_the_metrics_are_found_and_their_token_is_the_setting() -> None:
    objects = rendered("daemon-postgres", "service-monitor")
    monitor, service = objects["ServiceMonitor"], objects["Service"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]


def test_the_operator_gets_the_same_alerts() -> None:
    alerts: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    assert rendered("daemon-postgres", "prometheus-rule")["PrometheusRule"]["spec"] == alerts


def test_every_part_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "deploying.md").read_text()
    assert all(f"| `{name}` |" in text for name in (*OVERLAYS, *COMPONENTS))
