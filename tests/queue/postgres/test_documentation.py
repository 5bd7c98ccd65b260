"""The statements of docs/postgresql.md, run as printed."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.queue.helpers import claim
from tests.queue.postgres_server import administer, connected, new_database, new_role
from worker.queue.postgres import PostgresQueue

PAGE = (Path(__file__).parents[3] / "docs" / "postgresql.md").read_text(encoding="utf-8")
OUTBOX, TRIGGER, ARGUMENTS, CASTS, WORKER_RIGHTS, PRODUCER_RIGHTS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
[PYTHON] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with new_database() as url:
        await administer(
            url,
            "CREATE TABLE review (completion_id text PRIMARY KEY, grade text);"
            "INSERT INTO review VALUES ('chatcmpl-9x', NULL)",
        )
        yield url


async def changes_of(url: str) -> list[str]:
    async with await PostgresQueue.open(url) as queue:
        return [each.metadata for claimed in await claim(queue) for each in claimed.changes]


async def test_the_outbox_in_sql(url: str) -> None:
    await administer(url, OUTBOX)

    assert await changes_of(url) == ['{"draft": null, "grade": "A"}']


async def test_the_outbox_in_python(url: str) -> None:
    names: dict[str, Any] = {}
    exec(f"import asyncpg, json\n{PYTHON}", names)  # noqa: S102 -- our own words
    async with connected(url) as connection:
        await names["grade"](connection, "chatcmpl-9x", "B")

    assert await changes_of(url) == ['{"draft": null, "grade": "B"}']


async def test_the_trigger(url: str) -> None:
    await administer(url, TRIGGER)
    await administer(url, "UPDATE review SET grade = 'C'")

    assert await changes_of(url) == ['{"grade": "C"}']


async def test_the_arguments(url: str) -> None:
    await administer(url, ARGUMENTS)

    async with await PostgresQueue.open(url) as queue:
        [claimed] = await queue.claim(1, lease_seconds=60, owner="worker", place="urgent")
    [change] = claimed.changes
    assert (change.metadata, change.batch) == ('{"grade": "A"}', "regrade-2026-11")
    assert change.as_of == datetime(2026, 11, 29, 10, 15, tzinfo=UTC).timestamp()


async def test_the_casts_of_a_trigger(url: str) -> None:
    await administer(
        url,
        "ALTER TABLE review ADD id integer DEFAULT 7, ADD version integer DEFAULT 1, ADD score integer,"
        " ADD flagged boolean, ADD reviewed_at timestamptz",
    )
    await administer(url, CASTS)
    await administer(
        url,
        "CREATE TRIGGER cast_them AFTER UPDATE ON review FOR EACH ROW EXECUTE FUNCTION enqueue_review();"
        "UPDATE review SET score = 3, flagged = true, reviewed_at = '2026-01-02 03:04:05+01'",
    )

    assert await changes_of(url) == ['{"score": "3", "flagged": "true", "reviewed": "2026-01-02T02:04:05Z"}']


async def test_the_rights_of_workers(url: str) -> None:
    async with new_role(url) as (role, role_url):
        await administer(url, WORKER_RIGHTS.replace("worker", role))
        await administer(url, OUTBOX)

        assert len(await changes_of(role_url)) == 1


async def test_the_rights_of_producers(url: str) -> None:
    async with new_role(url) as (role, role_url):
        await administer(url, PRODUCER_RIGHTS.replace("producer", role) + f"GRANT SELECT, UPDATE ON review TO {role}")
        await administer(role_url, OUTBOX)

    assert len(await changes_of(url)) == 1
