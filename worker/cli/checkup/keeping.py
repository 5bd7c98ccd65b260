"""What was there before a probe, in a file that `metasync apply` puts back: it outlives whatever kills the probe."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


class CannotKeep(Exception):
    """It cannot be kept, so nothing must be written; the message is one sentence."""


class Kept:
    """The file, on the disk before this returns.

    Args:
        before: the completion's metadata.

    Raises:
        CannotKeep: there is such a file already, or none can be made.
    """

    def __init__(self, completion_id: str, before: Mapping[str, str], folder: Path = Path()) -> None:
        self.path = folder / f"metasync-probe-{completion_id}.jsonl"
        change = {"completion_id": completion_id, "metadata": dict(before), "mode": "replace"}
        self.text = json.dumps(change, ensure_ascii=False)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise CannotKeep(
                f"{self.path} is there, of a probe that did not end: `metasync apply {self.path}` puts back what it "
                "holds; then remove it"
            ) from None
        except OSError as error:
            raise CannotKeep(f"{self.path}, to keep what is there, cannot be written: {error.strerror}") from None
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{self.text}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.remove()
            raise CannotKeep(f"{self.path}, to keep what is there, cannot be written: {error.strerror}") from None

    def __repr__(self) -> str:
        return f"<Kept {self.path}>"

    def remove(self) -> None:
        """It is not needed any more."""
        with suppress(OSError):
            self.path.unlink()
