"""Runs checkov on the image and on each overlay, in a namespace as a user would set it: `make check-deploy`."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.deploy.rendering import OVERLAYS, ROOT, rendered

# The namespace is the user's, and none is named in what we ship.
_NAMESPACE = "metasync"


def main(checkov: str) -> int:
    """Return checkov's exit code, 0 when nothing failed."""
    with TemporaryDirectory() as name:
        for overlay in OVERLAYS:
            objects = rendered(overlay).values()
            placed = [found | {"metadata": found["metadata"] | {"namespace": _NAMESPACE}} for found in objects]
            Path(name, f"{overlay}.yaml").write_text(yaml.safe_dump_all(placed))
        Path(name, "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
        words = [checkov, "--skip-download", "--quiet", "--compact", "--directory", name]
        return subprocess.run([*words, "--framework", "kubernetes", "dockerfile"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
