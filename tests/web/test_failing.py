"""A failure in one part of the web server affects only that part, and is logged once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.web.inside import Inside, a_worker_inside
from worker.queue import HistoryMinute
from worker.web import server
from worker.web.live import Live
from worker.web.view import Speed, View


async def _is_well_but_for_that(inside: Inside) -> bool:
    """Whether the pulse goes on, and health and metrics are answered."""
    before, age = 0.0, 0.0
    while age >= before:  # until the pulse's next tick
        before = age
        status, body = await inside.ask_json("GET /livez")
        if status != 200:
            return False
        age = body["tick_age_seconds"]
    ready = await inside.ask_json("GET /readyz") == (200, {"ready": True, "failing": {}})
    return ready and (await inside.ask("GET /metrics")).status == 200


def _named(logs: list[EventDict], event: str) -> list[Any]:
    return [line["part"] for line in logs if line["event"] == event]


async def test_a_page_that_cannot_be_rendered_says_so_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_worker_inside(tmp_path) as inside, inside.events() as documents:
        with capture_logs() as logs:
            assert (await anext(documents))["state"]["title"] == "Nothing to do"
            for times in (1, 2):
                monkeypatch.setattr(inside.worker.tallies, "latest", None)
                while "failed" not in await anext(documents):
                    pass
                assert await anext(documents) == {"failed": True}
                assert await _is_well_but_for_that(inside)
                assert _named(logs, "web.failing") == ["page"] * times
                monkeypatch.undo()
                while "failed" in await anext(documents):
                    pass
                assert _named(logs, "web.works_again") == ["page"] * times
    [first, _] = [line for line in logs if line["event"] == "web.failing"]
    assert first["exc_info"]


def test_the_speed_does_not_jump_when_the_history_is_known_again() -> None:
    speed = Speed()
    history = [HistoryMinute(60, applied=600), HistoryMinute(120, applied=40)]
    speed.look(history, 1.0)
    assert speed.look([history[0], HistoryMinute(120, applied=50)], 2.0) == 10.0
    assert speed.look(None, 3.0) == 5.0
    assert speed.look([history[0], HistoryMinute(120, applied=60)], 5.0) == 5.0
    assert speed.look(None, 30.0) == 0.0


async def test_samples_that_cannot_be_taken_are_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    taken = asyncio.Event()

    async def sample(_: View) -> None:
        nonlocal tried
        tried += 1
        if tried <= 3:
            raise ValueError("no sample")
        taken.set()

    monkeypatch.setattr(server, "_SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(View, "sample", sample)
    with capture_logs() as logs:
        async with a_worker_inside(tmp_path) as inside:
            await taken.wait()
            assert await _is_well_but_for_that(inside)
    assert _named(logs, "web.failing") == _named(logs, "web.works_again") == ["samples"]


async def test_a_loop_that_dies_all_the_same_is_named_and_takes_neither_pulse_nor_work_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(_: Live) -> None:
        raise ValueError("no page")

    monkeypatch.setattr(Live, "run", run)
    with capture_logs() as logs:
        async with a_worker_inside(tmp_path) as inside:
            assert await _is_well_but_for_that(inside)
            assert not inside.worker.stopping
    assert [line["loop"] for line in logs if line["event"] == "loop.died"] == ["web.page"]
