"""Save the original metadata in a file that `metasync apply` can restore, even if the probe is killed."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


class CannotKeep(Exception):
    """The metadata cannot be saved, so the probe must not write; the message is one sentence."""


class Kept:
    """The saved file; it is on the disk when the constructor returns.

    Args:
        before: the completion's metadata.

    Raises:
        CannotKeep: the file exists already, or cannot be written.
    """

    def __init__(self, completion_id: str, before: Mapping[str, str], folder: Path = Path()) -> None:
        self.path = folder / f"metasync-probe-{completion_id}.jsonl"
        change = {"completion_id": completion_id, "metadata": dict(before), "mode": "replace"}
        self.text = json.dumps(change, ensure_ascii=False)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise CannotKeep(
                f"{self.path} exists, of a probe that did not end: `metasync apply {self.path}` restores its metadata, "
                "then remove it"
            ) from None
        except OSError as error:
            raise CannotKeep(f"{self.path}, for the original metadata, cannot be written: {error.strerror}") from None
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{self.text}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.remove()
            raise CannotKeep(f"{self.path}, for the original metadata, cannot be written: {error.strerror}") from None

    def __repr__(self) -> str:
        return f"<Kept {self.path}>"

    def remove(self) -> None:
        """Delete the file: it is not needed any more."""
        with suppress(OSError):
            self.path.unlink()
