"""Limits the memory of a process like a pod's limit, or as closely as the system permits."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_FOLDERS = {  # where to make a control group of our own, and what says how much memory it may have
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    Path("/sys/fs/cgroup"): ("memory.max", "memory.swap.max"),
}
_numbers = count()


@contextmanager
def memory_bound(mebibytes: int) -> Iterator[Sequence[str]]:
    """Give what to put before a command."""
    for folder, (limit, swap) in _FOLDERS.items():
        group = folder / f"metasync-test-{os.getpid()}-{next(_numbers)}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(mebibytes * 1024 * 1024))
                if (group / swap).exists():
                    (group / swap).write_text("0" if swap == "memory.swap.max" else str(mebibytes * 1024 * 1024))
                yield ("sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(group))
                return
        finally:
            group.rmdir()
    yield ("sh", "-c", 'ulimit -d "$0" && exec "$@"', str(mebibytes * 1024))
