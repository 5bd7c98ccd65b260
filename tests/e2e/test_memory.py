"""Large changes, and many of one completion, within 256 MiB, for any backlog."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bounded import memory_bound
from tests.e2e.processes import KEY, Command, running_simulator
from tests.queue.stores import STORES
from worker.changes import MetadataChange
from worker.queue import open_queue

MEBIBYTES = 256
AT_ONCE = 1_000
EACH = 1_000


def changes(completions: int, last: str) -> Iterator[list[MetadataChange]]:
    """All of them, in portions; each value ends with this character."""
    largest = {f"key-{number:02d}": "v" * 511 + last for number in range(16)}  # 8 KB: more is refused
    all_of_them = [
        MetadataChange(f"chatcmpl-{completion:06d}", largest | {"key-00": f"{number}"}, "replace")
        for completion in range(1, completions + 1)
        for number in range(EACH)
    ]
    for first in range(0, len(all_of_them), AT_ONCE):
        yield all_of_them[first : first + AT_ONCE]


# Measured once at the size of an incident: 80 completions with 1,000 changes each, and 36,000 with one. With one emoji,
# all characters of a text take four bytes in memory.
@pytest.mark.parametrize(("completions", "last"), [(24, "v"), (8, "\N{GRINNING FACE}")], ids=["letters", "emoji"])
@pytest.mark.parametrize("store", STORES)
async def test_large_changes_get_through_a_small_pod(tmp_path: Path, store: str, completions: int, last: str) -> None:
    async with STORES[store](tmp_path) as url:
        async with open_queue(url, timeout_seconds=60) as queue:
            for portion in changes(completions, last):
                await queue.put(portion)
        with (
            running_simulator("--completions", str(completions), "--update-latency", "1s") as simulator,
            memory_bound(MEBIBYTES) as bounded,
        ):
            settings = {
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": simulator.base_url,
                "METASYNC_QUEUE_URL": url,
                "METASYNC_STORE_TIMEOUT": "60s",
                "METASYNC_LOG_LEVEL": "warning",
            }
            done = Command(tmp_path, settings, bounded).run("run", "--drain")
        async with open_queue(url) as queue:
            status = await queue.status()

    assert (done.returncode, status.pending, status.dead) == (0, 0, 0), done.stderr
