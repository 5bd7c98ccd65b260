"""The image is built as it should be, and says whether it is well."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
