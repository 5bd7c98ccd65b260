"""Runs the background loops: each has a name, and a loop that dies is logged."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from worker.queue import QueueError

_STOP_SECONDS = 2.0


class Supervisor:
    """Runs loops until they are stopped. A loop that dies is logged by its name, and the owner is told once.

    Args:
        logger: gets `loop.died` with the loop's name.
        on_death: called when the first loop dies. The others run on until the owner stops them, so that finished work
            can be recorded.
    """

    def __init__(self, logger: structlog.typing.FilteringBoundLogger, on_death: Callable[[], None]) -> None:
        self._logger = logger
        self._on_death = on_death
        self._loops: dict[str, asyncio.Task[None]] = {}
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Supervisor [{', '.join(self._loops) or 'nothing runs'}]>"

    def __contains__(self, name: str) -> bool:
        """Whether a loop of this name runs."""
        return name in self._loops

    def start(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop under a name that no running loop has."""
        task = asyncio.get_running_loop().create_task(loop, name=name)
        self._loops[name] = task
        task.add_done_callback(partial(self._ended, name))

    async def stop(self, *names: str) -> None:
        """Cancel these loops, or all if none is named, the newest first; wait until they have ended.

        The wait is bounded: a loop may hang in a call to a store that no packet reaches.
        """
        tasks = [task for name, task in reversed(self._loops.items()) if not names or name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._loops[name]
        if task.cancelled():
            return
        error = innermost(task.exception())
        if error is None:
            return
        trace = None if isinstance(error, QueueError) else error  # a store's refusal is one sentence, without a trace
        self._logger.error("loop.died", loop=name, error=f"{type(error).__name__}: {error}", exc_info=trace)
        if self.error is None:
            self.error = error
            self._on_death()


def innermost(error: BaseException | None) -> BaseException | None:
    """The first error within nested groups; an error that is no group is returned as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
