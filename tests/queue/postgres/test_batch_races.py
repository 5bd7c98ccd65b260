"""Batches under many connections and killed processes: nothing is lost, and the counts are right."""

import asyncio
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from tests.queue.helpers import change
from tests.queue.postgres_server import connected, sessions
from worker.queue import Claim, DeadSelection, Death, PendingSelection, Place, Settlement
from worker.queue.postgres import PostgresQueue

ROOT = Path(__file__).parents[3]
NAMES = ("a", "b", "c")
COMPLETIONS = 12


async def check_counts(queue: PostgresQueue, connection: asyncpg.Connection) -> None:
    """Compare the counts with the content."""
    pending = await connection.fetch(
        "SELECT name, count(*) FROM metasync.change JOIN metasync.batch ON number = batch GROUP BY name"
    )
    dead = await connection.fetch("SELECT batch, count(*) FROM metasync.dead_letter GROUP BY batch")
    batches = await queue.batches()
    assert {each.name: each.pending for each in batches if each.pending} == dict(map(tuple, pending))
    assert {each.name: each.dead for each in batches if each.dead} == dict(map(tuple, dead))
    [minutes] = await connection.fetch(
        "SELECT sum(applied) AS applied, sum(unchanged) AS unchanged, sum(superseded) AS superseded,"
        " sum(withdrawn) AS withdrawn FROM metasync.history"
    )
    for kind, counted in minutes.items():
        assert sum(getattr(each, kind) for each in batches) == (counted or 0)
    wrong: int = await connection.fetchval(
        "SELECT count(*) FROM metasync.target LEFT JOIN LATERAL"
        " (SELECT bool_or(urgent) AS urgent FROM metasync.change WHERE target = number) AS have ON true"
        " WHERE target.urgent IS DISTINCT FROM have.urgent"  # NULL: it has no changes, and is to be gone
    )
    assert wrong == 0


@dataclass(slots=True)
class Race:
    """All at once, each on its own connections.

    Args:
        put: how many changes were put.
        producing: how many producers run.
    """

    url: str
    put: int = 0
    producing: int = 0
    withdrawn: int = 0
    retried: int = 0
    ended: dict[str, int] = field(default_factory=lambda: {"applied": 0, "unchanged": 0, "superseded": 0, "dead": 0})

    async def produce(self, dice: random.Random, rounds: int) -> None:
        self.producing += 1
        async with await PostgresQueue.open(self.url, timeout_seconds=60) as queue:
            for _ in range(rounds):
                size = dice.choice([1, 3, 50])
                changes = [change(f"c-{dice.randrange(COMPLETIONS)}") for _ in range(size)]
                stored = await queue.put(changes, batch=dice.choice(NAMES), urgent=dice.random() < 0.3)
                self.put += stored.added
        self.producing -= 1

    async def produce_in_sql(self, dice: random.Random, rounds: int) -> None:
        self.producing += 1
        async with connected(self.url) as connection:
            for _ in range(rounds):
                try:
                    made = await self.transaction(connection, dice)
                except asyncpg.DeadlockDetectedError:  # a call that stores many may go by another order
                    continue
                self.put += made
        self.producing -= 1

    async def transaction(self, connection: asyncpg.Connection, dice: random.Random) -> int:
        """Enqueue a few, and mostly commit; return how many were stored."""
        completion_ids = sorted({f"c-{dice.randrange(COMPLETIONS)}" for _ in range(dice.randint(1, 4))})
        is_kept = dice.random() < 0.8
        transaction = connection.transaction()
        await transaction.start()
        try:
            for completion_id in completion_ids:
                sql = 'SELECT metasync_enqueue($1, \'{"label": "x"}\', batch => $2, urgent => $3)'
                await connection.fetchval(sql, completion_id, dice.choice(NAMES), dice.random() < 0.3)
            await connection.execute("SELECT pg_sleep($1)", dice.random() / 200)
        except asyncpg.DeadlockDetectedError:
            await transaction.rollback()
            raise
        await (transaction.commit() if is_kept else transaction.rollback())
        return len(completion_ids) if is_kept else 0

    async def work(self, dice: random.Random) -> None:
        async with await PostgresQueue.open(self.url, timeout_seconds=60) as queue:
            while self.producing or await queue.next_due_seconds() is not None:
                place: Place = dice.choice(["oldest", "urgent", "middle", "newest"])
                claims = await queue.claim(4, lease_seconds=60, owner="worker", place=place)
                settlements = [self.ending(claimed, dice) for claimed in claims]
                assert await queue.settle(settlements, remember=True) == []
                for settlement in settlements:
                    for kind in self.ended:
                        self.ended[kind] += len(getattr(settlement, kind))

    def ending(self, claimed: Claim, dice: random.Random) -> Settlement:
        numbers = [each.number for each in claimed.changes]
        dice.shuffle(numbers)
        cuts = sorted(dice.randint(0, len(numbers)) for _ in range(4))
        applied, unchanged, superseded, dead = (
            numbers[start:end] for start, end in zip([0, *cuts[:3]], cuts, strict=True)
        )
        deaths = [Death(number, "rejected", attempts=1) for number in dead]
        return Settlement(claimed, applied=applied, unchanged=unchanged, superseded=superseded, dead=deaths)

    async def tidy(self, dice: random.Random) -> None:
        """Withdraw changes, retry letters, read, and delete what is done."""
        async with await PostgresQueue.open(self.url, timeout_seconds=60) as queue:
            while self.producing:
                name = dice.choice(NAMES)
                selection = dice.choice(
                    [PendingSelection(batch=name), PendingSelection(completion_id=f"c-{dice.randrange(COMPLETIONS)}")]
                )
                withdrawn = await queue.withdraw(selection)
                self.withdrawn += withdrawn.withdrawn
                revived = await queue.retry_dead(DeadSelection(batch=name))
                self.retried += revived.retried
                await queue.batches()
                await queue.forget(3_600, most=10)


async def test_concurrent_calls_cause_no_deadlock_and_lose_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    race = Race(url)
    monkeypatch.setattr("worker.queue.postgres.pending.PIECE", 20)
    async with asyncio.TaskGroup() as group:
        for seed in range(2):
            group.create_task(race.produce(random.Random(seed), 40))
            group.create_task(race.produce_in_sql(random.Random(10 + seed), 60))
            group.create_task(race.work(random.Random(20 + seed)))
            group.create_task(race.tidy(random.Random(30 + seed)))

    async with await PostgresQueue.open(url) as queue, connected(url) as connection:
        await check_counts(queue, connection)
        letters = await connection.fetchval("SELECT count(*) FROM metasync.dead_letter")
        batches = await queue.batches()
    assert letters == race.ended["dead"] - race.retried
    assert sum(each.changes for each in batches) == race.put
    assert sum(each.withdrawn for each in batches) == race.withdrawn
    assert sum(each.applied for each in batches) == race.ended["applied"]
    assert race.put == race.withdrawn + sum(race.ended.values()) - race.retried


@pytest.mark.parametrize("kills", [6])
async def test_counts_of_a_batch_stay_exact_when_processes_are_killed(url: str, kills: int) -> None:
    dice = random.Random(kills)
    for seed in range(kills):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.queue.batch_contender",
            url,
            str(seed),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert process.stdout is not None
        for _ in range(dice.randint(2, 6)):
            assert await process.stdout.readline()
        await asyncio.sleep(dice.random() / 50)  # at a random moment
        process.kill()
        await process.wait()
        async with connected(url) as connection, await PostgresQueue.open(url) as queue:
            while await sessions(connection, "backend_type = 'client backend' AND application_name = 'metasync'") > 1:
                await asyncio.sleep(0.005)
            await check_counts(queue, connection)
