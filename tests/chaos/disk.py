"""A small disk that can be filled and emptied."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.needs import skip_not_permitted

_PIECES_BYTES = (2**20, 2**12)


class Disk:
    """A file system in memory.

    Args:
        path: where it is mounted; everybody may write there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @classmethod
    @contextmanager
    def mounted(cls, megabytes: int) -> Iterator[Self]:
        """Mount a disk of this size, or skip the test where this process may not mount any."""
        with tempfile.TemporaryDirectory(prefix="disk-") as folder:
            Path(folder).chmod(0o711)  # for servers that run as another user
            path = Path(folder) / "mounted"
            path.mkdir()
            options = f"size={megabytes}m,mode=1777"
            command = ["mount", "-t", "tmpfs", "-o", options, "metasync-test", str(path)]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                skip_not_permitted("only root can mount a disk to be filled up")
            try:
                yield cls(path)
            finally:
                subprocess.run(["umount", "-l", str(path)], check=True)

    def fill(self) -> None:
        """Take all the room that there is."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in _PIECES_BYTES:
                with suppress(OSError):
                    while True:
                        os.write(ballast.fileno(), bytes(size))

    def make_room(self) -> None:
        """Give it back."""
        self._ballast.unlink()
