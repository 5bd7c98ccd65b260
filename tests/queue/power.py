"""The disk after a loss of power: each file has the content of its last sync."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw


class Disk(apsw.VFS):
    """The system's files; each is copied when SQLite has it synced.

    Args:
        copies: the folder for the copies.
    """

    def __init__(self, copies: Path) -> None:
        self.copies = copies
        self.sync_flags: list[int] = []
        self.system = apsw.vfs_names()[0]
        super().__init__("power", self.system, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        """Open a file."""
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001 -- SQLite's name, and its arguments
        """Delete a file, for good: SQLite syncs the folder when it next syncs a new file in it."""
        super().xDelete(filename, syncdir)
        (self.copies / Path(filename).name).unlink(missing_ok=True)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else str(name)).name
        super().__init__(disk.system, name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 -- SQLite's name
        super().xSync(flags)
        self._disk.sync_flags.append(flags)
        # Not by its path: closing a file releases the process's locks on it.
        (self._disk.copies / self._name).write_bytes(self.xRead(self.xFileSize(), 0))


@contextmanager
def disk(copies: Path) -> Iterator[Disk]:
    """Put all files that SQLite opens in this process on such a disk."""
    copies.mkdir()
    disk = Disk(copies)
    try:
        yield disk
    finally:
        disk.unregister()
