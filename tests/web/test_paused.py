"""A worker's web server while the queue is paused."""

import asyncio
from pathlib import Path

from tests.web.inside import a_worker_inside
from worker.queue import Standstill, open_queue, pause, resume
from worker.web.words import state_of


async def test_a_paused_worker_is_ready_and_says_that_it_is_paused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with open_queue(url) as queue:
        await pause(queue, "ana\x1b[2J@host", "the release\u202e of today")
    async with a_worker_inside(tmp_path, url=url) as inside:
        async with asyncio.timeout(60):
            while "paused" not in (await inside.ask_json("GET /readyz"))[1]:
                await asyncio.sleep(0.05)
        assert await inside.ask_json("GET /readyz") == (200, {"ready": True, "failing": {}, "paused": True})
        assert b"\nmetasync_paused 1.0\n" in (await inside.ask("GET /metrics")).body
        async with inside.events() as documents:
            state = (await anext(documents))["state"]
        assert (state["kind"], state["title"]) == ("paused", "Paused")
        said = r"Paused by ana\x1b[2J@host: the release\u202e of today. `metasync resume` lets workers go on."
        assert state["detail"] == said
        assert state["since"] is not None
        await resume(inside.queue)
        async with asyncio.timeout(60):
            while "paused" in (await inside.ask_json("GET /readyz"))[1]:
                await asyncio.sleep(0.05)
        assert b"\nmetasync_paused 0.0\n" in (await inside.ask("GET /metrics")).body


def test_a_pause_is_not_told_of_while_the_store_that_keeps_it_is_away() -> None:
    state = state_of(
        None,
        None,
        now=1_000.0,
        per_second=0.0,
        stopping=False,
        standstill=Standstill("ana@host", None, 900.0),
        store_error="the store did not answer in time",
    )
    assert (state.kind, state.detail) == ("blind", "The store did not answer in time.")
