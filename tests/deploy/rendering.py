"""Renders the overlays and components with kustomize, combined as a user would."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())

_OF_OUR_OWN = ROOT / ".tools" / "kubectl"  # `make tools`


@cache
def rendered(overlay: str, *components: str) -> dict[str, dict[str, Any]]:
    """The objects of an overlay with these components, by kind: none has two of a kind."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        paths = [os.path.relpath(KUBERNETES / "components" / each, folder) for each in components]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(KUBERNETES / "overlays" / overlay, folder)],
            "components": paths,
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        words = [_kubectl(), "kustomize", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    by_kind = {found["kind"]: found for found in objects}
    assert len(by_kind) == len(objects)
    return by_kind


def pod_of(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The spec of the one pod that the objects start."""
    (found,) = (objects[kind] for kind in ("Deployment", "StatefulSet", "CronJob") if kind in objects)
    spec = found["spec"]
    if found["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def _kubectl() -> str:
    found = str(_OF_OUR_OWN) if _OF_OUR_OWN.exists() else shutil.which("kubectl")
    assert found, "kubectl renders the manifests: `make tools` installs it"
    return found
