"""The image is built correctly, and its health check works."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest

from config.settings import default_text

ROOT = Path(__file__).parents[2]


def test_the_image_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_each_stage_has_one_base_named_by_its_digest_and_a_python_that_is_promised() -> None:
    text = (ROOT / "Dockerfile").read_text()
    [name] = {line.split()[1] for line in text.splitlines() if line.startswith("FROM ")}
    base = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+@sha256:[0-9a-f]{64}", name)
    assert base
    assert f"Python :: {base[1]}" in (ROOT / "pyproject.toml").read_text()


def test_the_queue_is_in_the_volume_unless_a_setting_says_otherwise() -> None:
    final = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    (volume,) = re.findall(r"^VOLUME (\S+)$", final, re.MULTILINE)
    assert re.findall(r"^WORKDIR (\S+)$", final, re.MULTILINE) == [volume]
    assert default_text("queue_url") == "sqlite:///metasync.db"


def _is_well(environment: dict[str, str]) -> bool:
    """Whether the image's health check passes in this environment."""
    found = re.search(r'CMD \["python", "-c", "(.+)"\]', (ROOT / "Dockerfile").read_text())
    assert found
    words = [sys.executable, "-c", found[1]]
    return subprocess.run(words, env=environment, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(("environment", "well"), [({}, True), ({"METASYNC_HTTP_PORT": "1"}, False)])
def test_the_image_is_well_without_a_port_and_ill_when_its_port_is_silent(
    environment: dict[str, str], *, well: bool
) -> None:
    assert _is_well(environment) == well


def test_the_image_is_well_where_containers_have_a_proxy() -> None:
    class Alive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that the library calls
            self.send_response(200 if self.path == "/livez" else 404)
            self.end_headers()

    with ThreadPoolExecutor(1) as serving, HTTPServer(("127.0.0.1", 0), Alive) as server:
        serving.submit(server.serve_forever)
        try:
            environment = {"METASYNC_HTTP_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:1"}
            assert _is_well(environment)
        finally:
            server.shutdown()


def _is_in_the_context(path: Path) -> bool:
    """Whether the image's build gets to see this file, by the last rule that names it or what it lies in."""
    names = [str(each) for each in (path, *path.parents) if each != Path()]
    is_in = True
    for rule in (ROOT / ".dockerignore").read_text().split():
        pattern = rule.removeprefix("!").rstrip("/")
        if any(fnmatch(name, pattern) for name in names):
            is_in = rule.startswith("!")
    return is_in


def _files(source: str) -> list[Path]:
    """What this folder holds, or the file that it is, but for what Python has left there."""
    path = ROOT / source
    found = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return [each.relative_to(ROOT) for each in found if "__pycache__" not in each.parts]


def test_the_image_builds_a_wheel_that_is_whole(tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    files = [file for source in " ".join(copied).split() for file in _files(source)]
    for each in files:
        assert _is_in_the_context(each), f"{each} is not in the build's context"
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / each, tmp_path / each)
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    for package in ("metasync", "worker", "config"):
        assert {str(each) for each in _files(package)} <= inside
    assert "worker/examples/labels.jsonl" in inside
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in inside)
