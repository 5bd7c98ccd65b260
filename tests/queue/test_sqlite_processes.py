"""Several processes on one file, and processes that are killed."""

import asyncio
import os
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from tests.queue.contender import named
from tests.queue.helpers import change, claim, finished, labels
from worker.queue import Batch, PendingSelection
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


async def the_batch(queue: SqliteQueue) -> Batch:
    """Give the batch, whose counts have to agree with what is there."""
    [batch] = await queue.batches("b")
    pending = [each async for each in queue.pending_changes(PendingSelection(batch="b"))]
    assert batch.pending == len(pending) == (await queue.status()).pending
    return batch


@pytest.mark.parametrize("kill_after", [1, 4, 9])
async def test_a_kill_at_work_on_a_batch_leaves_counts_that_agree_and_what_was_settled_is_remembered(
    tmp_path: Path, kill_after: int
) -> None:
    size = 20
    child = await start("batch", f"sqlite:///{tmp_path}/queue.db", str(size))
    assert child.stdout is not None
    for _ in range(kill_after):
        await child.stdout.readline()
    await asyncio.sleep(random.Random(kill_after).uniform(0, 0.05))  # a random moment is what this is about
    child.kill()
    rest, _ = await child.communicate()
    pieces = kill_after + len([line for line in rest.splitlines() if line.endswith(b"}")])

    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db") as queue:
        batch = await the_batch(queue)
        assert batch.changes == batch.applied + batch.pending
        assert batch.applied > 0
        whole = [named(piece, number) for piece in range(pieces) for number in range(size + 1)]
        again = await queue.put(whole, batch="b")  # each is pending, or remembered: none is lost, none is there twice
        assert (again.added, again.duplicates) == (0, pieces * (size + 1))
        begun = await queue.put([named(pieces, number) for number in range(size)], batch="b")
        assert begun.added in (0, size)
        assert (await the_batch(queue)).changes == batch.changes + begun.added
        urgent = await queue.claim(100, lease_seconds=60, owner="worker", place="urgent")
        assert len(urgent) <= 1 + kill_after
        assert all(claimed.completion_id.endswith(f"-{size}") for claimed in urgent)


@pytest.mark.parametrize("already_gone", [1, 10_000, 20_000])
async def test_a_kill_at_a_withdrawal_leaves_counts_that_agree_and_the_next_one_ends_it(
    tmp_path: Path, already_gone: int
) -> None:
    url, size = f"sqlite:///{tmp_path}/queue.db", 30_000
    async with await SqliteQueue.open(url) as queue:
        await queue.put([change(f"c-{number}") for number in range(size)], batch="b")
        child = await start("withdraw", url)
        while (await queue.batches("b"))[0].withdrawn < already_gone:
            await asyncio.sleep(0)
        child.kill()
        await child.communicate()

        batch = await the_batch(queue)
        assert batch.changes == size == batch.withdrawn + batch.pending
        assert sum(minute.withdrawn for minute in await queue.history(5)) == batch.withdrawn
        assert (await queue.withdraw(PendingSelection(batch="b"))).withdrawn == batch.pending
        assert (await the_batch(queue)).withdrawn == size
        assert await queue.next_due_seconds() is None
