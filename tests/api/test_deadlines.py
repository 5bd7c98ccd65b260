"""Many time-outs on one timer."""

import asyncio

import pytest

from worker.api.deadlines import Deadlines

LONG = 60.0  # seconds: nothing here comes near it


async def never() -> None:
    await asyncio.Event().wait()


async def test_a_call_that_takes_too_long_ends_with_a_time_out() -> None:
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.within(0.02):
        await never()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert repr(deadlines) == "<Deadlines [0 running]>"


async def test_a_call_that_ends_in_time_is_not_cancelled() -> None:
    deadlines = Deadlines()
    with deadlines.within(0.02):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert repr(deadlines) == "<Deadlines [0 running]>"


async def test_a_short_time_beside_long_ones_is_kept_and_the_long_ones_go_on() -> None:
    deadlines = Deadlines()
    go_on = asyncio.Event()

    async def long() -> str:
        with deadlines.within(LONG):
            await go_on.wait()
            return "done"

    async def short() -> None:
        with deadlines.within(0.02):
            await never()

    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(long()) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await short()
        go_on.set()
    assert [task.result() for task in waiting] == ["done"] * 3
    deadlines.close()


async def test_each_call_ends_at_its_own_deadline() -> None:
    deadlines = Deadlines()
    ended: list[float] = []

    async def call(seconds: float) -> None:
        with pytest.raises(TimeoutError), deadlines.within(seconds):
            await never()
        ended.append(seconds)

    await asyncio.gather(*(call(seconds) for seconds in (0.15, 0.05, 0.1)))
    assert ended == [0.05, 0.1, 0.15]


async def test_a_cancellation_from_elsewhere_is_no_time_out() -> None:
    deadlines = Deadlines()

    async def call() -> None:
        with deadlines.within(LONG):
            await never()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadlines.close()


async def test_a_cancellation_wins_over_a_time_out_at_the_same_moment() -> None:
    deadlines = Deadlines()

    async def call() -> None:
        with deadlines.within(0.0):
            await never()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    deadlines._look()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_within_the_context_propagates() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="mine"), deadlines.within(LONG):
        raise ValueError("mine")
    deadlines.close()
