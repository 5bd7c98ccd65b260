"""Several processes on one file, and processes that are killed."""

import asyncio
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import apsw
import msgspec

from tests.queue.helpers import claim, finished, labels
from worker.queue.sqlite import SqliteQueue

BATCHES = 25
SIZE = 8
NAMES = ("a", "b", "c")


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.queue.contender",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


async def facts_of(url: str, name: str) -> list[dict[str, Any]]:
    """Run a contender to its end, and give what it has said."""
    child = await start("contend", url, name, str(BATCHES), str(SIZE))
    output, _ = await child.communicate()
    assert child.returncode == 0
    return [msgspec.json.decode(line) for line in output.splitlines()]


async def test_processes_that_share_a_file_lose_nothing_and_never_hold_one_completion_together(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    said = await asyncio.gather(*(facts_of(url, name) for name in NAMES))

    claims = [fact for facts in said for fact in facts if "lease" in fact]
    assert sum(fact["stale"] for facts in said for fact in facts if "stale" in fact) == 0
    assert len({(fact["completion_id"], fact["lease"]) for fact in claims}) == len(claims)
    done_by_completion: dict[str, list[str]] = defaultdict(list)
    for fact in sorted(claims, key=lambda fact: fact["lease"]):  # leases are numbered in the order of the claims
        done_by_completion[fact["completion_id"]] += fact["done"]
    assert len(done_by_completion) == SIZE
    for done in done_by_completion.values():
        for name in NAMES:
            own = [label for label in done if label.startswith(f"{name}:")]
            assert own == [f"{name}:{batch}" for batch in range(BATCHES)]
    async with await SqliteQueue.open(url) as queue:
        assert (await queue.status()).pending == 0


async def test_what_was_confirmed_survives_a_kill_and_no_batch_is_there_by_halves(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    for kill_after in (1, 7, 20):
        child = await start("endless", f"sqlite:///{path}", str(SIZE))
        assert child.stdout is not None
        confirmed = 0
        for _ in range(kill_after):
            confirmed = msgspec.json.decode(await child.stdout.readline())["put"] + 1
        child.kill()
        rest, _ = await child.communicate()
        confirmed += len([line for line in rest.splitlines() if line.endswith(b"}")])

        async with await SqliteQueue.open(f"sqlite:///{path}") as queue:
            claims = await claim(queue)
            stored = {labels(claimed)[-1] for claimed in claims}
            sizes = {len(claimed.changes) for claimed in claims}
            assert len(claims) == SIZE
            assert len(stored) == len(sizes) == 1  # each batch is there for every completion, or for none
            assert confirmed <= sizes.pop() <= confirmed + 1
            await queue.settle([finished(claimed) for claimed in claims])
        assert [entry.name for entry in os.scandir(tmp_path)] == ["queue.db"]  # the log that was left is worked in
    connection = apsw.Connection(str(path))
    assert connection.pragma("integrity_check") == "ok"
    connection.close()
