"""Notes the commit in wheels and archives, for `metasync --version -v`."""

import os
import runpy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NoteCommit(BuildHookInterface):
    """Puts the file ``worker/COMMIT`` into what is built, where the commit is known.

    It is the checkout's. Without one, as in the image's build, it is ``SOURCE_COMMIT`` of the environment. What is
    built from an archive has the archive's.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file; an installation that stays in the checkout (`editable`) asks git when it is asked."""
        root = Path(self.root)
        ours = runpy.run_path(str(root / "worker" / "commit.py"))
        commit = ours["commit_of"](root) or os.environ.get("SOURCE_COMMIT", "").strip()
        if version == "editable" or not commit or (root / "worker" / ours["NOTE"]).exists():
            return
        self._folder = TemporaryDirectory()
        note = Path(self._folder.name, ours["NOTE"])
        note.write_text(f"{commit}\n")
        build_data["force_include"][str(note)] = f"worker/{ours['NOTE']}"

    def finalize(self, *_: object) -> None:
        """Remove the file that was added."""
        if folder := getattr(self, "_folder", None):
            folder.cleanup()
