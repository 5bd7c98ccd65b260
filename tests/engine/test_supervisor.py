"""Supervised loops: a death is logged, and all end in order."""

import asyncio
from typing import Any

from structlog.testing import CapturingLogger

from tests.engine.parts import events
from tests.virtual import in_virtual_time
from worker.engine.supervisor import Supervisor
from worker.queue import QueueUnusable


class Roof:
    """A supervisor, its log, how often its owner is told, and how its loops ended."""

    def __init__(self) -> None:
        self.logger = CapturingLogger()
        bound: Any = self.logger
        self.told = 0
        self.ended: list[str] = []
        self.loops = Supervisor(bound, self._told)

    def _told(self) -> None:
        self.told += 1

    def start(self, name: str, *, takes_seconds: float = 0.0) -> None:
        """A loop that runs for ever, and takes its time to end."""

        async def run() -> None:
            try:
                await asyncio.sleep(3_600.0)
            finally:
                self.ended.append(name)
                await asyncio.sleep(takes_seconds)
                self.ended.append(f"{name} is over")

        self.loops.start(name, run())

    def start_dying(self, name: str, error: Exception, after_seconds: float = 1.0) -> None:
        async def run() -> None:
            await asyncio.sleep(after_seconds)
            raise error

        self.loops.start(name, run())

    @property
    def died(self) -> list[tuple[str, str]]:
        return [(event["loop"], event["error"]) for event in events(self.logger, "loop.died")]


@in_virtual_time
async def test_a_loop_that_dies_is_logged_by_its_name_and_the_others_run_on() -> None:
    roof, error = Roof(), ValueError("oops")
    roof.start("reader")
    roof.start_dying("heartbeat", error)
    await asyncio.sleep(2.0)
    assert roof.died == [("heartbeat", "ValueError: oops")]
    assert ("reader" in roof.loops, "heartbeat" in roof.loops) == (True, False)
    assert (roof.told, roof.loops.error) == (1, error)


@in_virtual_time
async def test_the_owner_is_told_of_the_first_death_only() -> None:
    roof, first = Roof(), ValueError("first")
    roof.start_dying("reader", KeyError("second"), after_seconds=2.0)
    roof.start_dying("heartbeat", first, after_seconds=1.0)
    await asyncio.sleep(3.0)
    assert [name for name, _ in roof.died] == ["heartbeat", "reader"]
    assert (roof.told, roof.loops.error) == (1, first)


@in_virtual_time
async def test_the_first_error_in_nested_groups_is_reported() -> None:
    roof, error = Roof(), QueueUnusable("the file has gone")
    roof.start_dying("quota", ExceptionGroup("a", [ExceptionGroup("b", [error])]))
    await asyncio.sleep(2.0)
    assert roof.died == [("quota", "QueueUnusable: the file has gone")]
    assert roof.loops.error is error


@in_virtual_time
async def test_a_bug_is_logged_with_its_trace_and_a_store_error_without() -> None:
    roof, fault = Roof(), ValueError("oops")
    roof.start_dying("reader", fault)
    roof.start_dying("recorder", QueueUnusable("the file has gone"))
    await asyncio.sleep(2.0)
    assert {event["loop"]: event["exc_info"] for event in events(roof.logger, "loop.died")} == {
        "reader": fault,
        "recorder": None,
    }


@in_virtual_time
async def test_a_loop_that_returns_has_not_died() -> None:
    roof = Roof()
    roof.loops.start("reader", asyncio.sleep(1.0))
    await asyncio.sleep(2.0)
    assert (roof.died, roof.told, "reader" in roof.loops) == ([], 0, False)


@in_virtual_time
async def test_stop_ends_the_newest_first_and_waits_for_all() -> None:
    roof = Roof()
    roof.start("recorder", takes_seconds=1.5)
    roof.start("appliers", takes_seconds=1.0)
    roof.start("reader")
    await asyncio.sleep(1.0)
    await roof.loops.stop()
    assert roof.ended[:4] == ["reader", "appliers", "recorder", "reader is over"]
    assert roof.ended[4:] == ["appliers is over", "recorder is over"]
    assert repr(roof.loops) == "<Supervisor [nothing runs]>"
    assert (roof.died, roof.told) == ([], 0)  # a loop that is stopped has not died


@in_virtual_time
async def test_stop_does_not_wait_long_for_a_loop_that_hangs() -> None:
    roof = Roof()
    roof.start("recorder", takes_seconds=3_600.0)
    await asyncio.sleep(1.0)
    await roof.loops.stop()
    assert roof.ended == ["recorder"]
    assert repr(roof.loops) == "<Supervisor [recorder]>"


@in_virtual_time
async def test_stop_ends_only_the_named_loops() -> None:
    roof = Roof()
    roof.start("recorder")
    roof.start("reader")
    await asyncio.sleep(1.0)
    await roof.loops.stop("reader")
    assert roof.ended == ["reader", "reader is over"]
    assert repr(roof.loops) == "<Supervisor [recorder]>"


@in_virtual_time
async def test_a_loop_that_dies_while_it_is_stopped_does_not_keep_the_others_from_ending() -> None:
    roof = Roof()
    roof.start("recorder")

    async def run() -> None:
        try:
            await asyncio.sleep(3_600.0)
        finally:
            raise ValueError("oops")

    roof.loops.start("reader", run())
    await asyncio.sleep(1.0)
    await roof.loops.stop()
    assert (roof.ended, roof.died) == (["recorder", "recorder is over"], [("reader", "ValueError: oops")])
