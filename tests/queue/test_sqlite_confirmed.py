"""The log of confirmed maps in a file: it survives a kill, stays bounded, and replacements never read it."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.queue.conformance.backends import Clock
from tests.queue.helpers import LEASE_SECONDS, change, claim, numbers
from worker.changes import MetadataChange
from worker.queue import Claim, Settlement
from worker.queue.sqlite import SqliteQueue
from worker.queue.sqlite.clock import Clocks


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def queue(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteQueue]:
    async with await SqliteQueue.open(f"sqlite:///{tmp_path}/queue.db", clocks=Clocks(clock, clock, "boot")) as queue:
        yield queue


def confirmed(claims: Sequence[Claim], label: str) -> list[Settlement]:
    return [Settlement(each, applied=numbers(each), confirmed={"label": label}) for each in claims]


async def confirm(queue: SqliteQueue, completion_id: str, *, keep_seconds: float) -> None:
    await queue.put([change(completion_id)])
    await queue.settle(confirmed(await claim(queue), completion_id), keep_seconds=keep_seconds)


async def test_what_was_confirmed_survives_a_kill_right_after_the_settlement(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.queue.contender", "confirm", url),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b'{"confirmed":"c-1"}\n'
    child.kill()
    await child.wait()

    async with await SqliteQueue.open(url) as queue:
        await queue.put([change("c-1")])
        [claimed] = await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=60)
        assert claimed.confirmed == {"by": "one that was killed"}


async def rows(queue: SqliteQueue) -> list[str]:
    """The first completion of each row."""
    sql = "SELECT completion_ids ->> 0 FROM confirmed ORDER BY number"
    return [str(name) for (name,) in await queue._writer.read(lambda connection: connection.execute(sql).fetchall())]


async def test_a_settlement_lets_two_old_rows_go_at_most(queue: SqliteQueue, clock: Clock) -> None:
    for i in range(5):
        await confirm(queue, f"old-{i}", keep_seconds=60)
    await clock.advance(60)
    found = []
    for i in range(4):
        await confirm(queue, f"new-{i}", keep_seconds=60)
        found.append(await rows(queue))

    assert found == [
        ["old-2", "old-3", "old-4", "new-0"],
        ["old-4", "new-0", "new-1"],
        ["new-0", "new-1", "new-2"],
        ["new-0", "new-1", "new-2", "new-3"],
    ]


async def test_who_only_replaces_never_reads_the_log(queue: SqliteQueue) -> None:
    await confirm(queue, "c-1", keep_seconds=60)
    read = []

    def note(event: dict[str, Any]) -> None:
        read.append("FROM confirmed" in event["sql"] or "JOIN confirmed" in event["sql"])

    async def take(completion_id: str, mode: str) -> Claim:
        await queue.put([MetadataChange(completion_id, {}, "replace" if mode == "replace" else "merge")])
        read.clear()
        [claimed] = await queue.claim(9, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=60)
        return claimed

    await queue._writer.read(lambda connection: connection.trace_v2(apsw.SQLITE_TRACE_STMT, note))
    claimed = await take("c-1", "replace")
    assert read
    assert not any(read)
    await queue.settle(confirmed([claimed], "new"))
    await take("c-2", "merge")
    assert any(read)


async def test_what_was_read_in_a_claim_whose_transaction_failed_is_read_again(
    queue: SqliteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await confirm(queue, "c-1", keep_seconds=60)
    await queue.put([change("c-1")])
    commit = queue._writer._commit

    def fail(connection: apsw.Connection, calls: Sequence[Any]) -> None:
        for call in calls:
            call.perform(connection)
        monkeypatch.setattr(queue._writer, "_commit", commit)
        raise apsw.FullError

    monkeypatch.setattr(queue._writer, "_commit", fail)
    with pytest.raises(Exception, match="the disk is full"):
        await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=60)

    [claimed] = await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=60)
    assert claimed.confirmed == {"label": "c-1"}


async def test_claims_at_the_same_time_learn_the_same_rows_once(queue: SqliteQueue) -> None:
    for i in range(3):
        await confirm(queue, f"c-{i}", keep_seconds=60)
    await queue.put([change(f"c-{i}") for i in range(3)])
    terms: dict[str, Any] = {"lease_seconds": LEASE_SECONDS, "owner": "worker", "confirmed_seconds": 60}
    claims = await asyncio.gather(*(queue.claim(1, **terms) for _ in range(3)))

    assert [each.confirmed for [each] in claims] == [{"label": f"c-{i}"} for i in range(3)]
    assert repr(queue._log) == "<LogIndex [3 updates up to 3]>"


async def test_what_is_known_of_a_log_is_not_believed_of_the_file_that_is_put_in_its_place(
    queue: SqliteQueue, clock: Clock, tmp_path: Path
) -> None:
    path, copy = tmp_path / "queue.db", tmp_path / "copy.db"
    await queue.put([change("c-1")])
    await queue.settle(confirmed(await claim(queue), "before"), keep_seconds=60)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    for completion_id in ("c-2", "c-3"):
        await confirm(queue, completion_id, keep_seconds=60)
    await queue.put([change("c-4")])
    await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=60)
    shutil.move(copy, path)
    await queue.status()
    async with await SqliteQueue.open(f"sqlite:///{path}", clocks=Clocks(clock, clock, "boot")) as another:
        await another.put([change("c-1")])
        await another.settle(confirmed(await claim(another), "after"), keep_seconds=60)
    await queue.put([change("c-1")])
    [claimed] = await queue.claim(1, lease_seconds=LEASE_SECONDS, owner="worker", confirmed_seconds=60)

    assert claimed.confirmed == {"label": "after"}
