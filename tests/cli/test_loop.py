"""The event loop of a command, when it is closed."""

import asyncio
import threading

import pytest

from worker.cli import loop

_begin = threading.Thread.start


def _only_the_first(thread: threading.Thread) -> None:
    """As at a limit of processes: there is room for the thread that closes the loop, and not for the one it needs."""
    if thread.name != "closing":
        raise RuntimeError("can't start new thread")
    _begin(thread)


def test_a_loop_that_needs_a_thread_to_close_and_gets_none_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    async def work() -> int:
        await asyncio.to_thread(int)
        monkeypatch.setattr(threading.Thread, "start", _only_the_first)
        return 3

    assert loop.run(work()) == 3
    assert told == []
