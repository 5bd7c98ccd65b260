"""Restore the metadata after a probe, and verify it: a read may still show a state before the probe."""

import asyncio
import time
from collections.abc import Callable, Mapping

from worker.api import Kind
from worker.cli.checkup.writing import Desk, ProbeFailed

_TRIES = 5
_LOOK_SECONDS = 0.5
_SAME_READS = 3
# A write without an answer may still take effect in the service: recorded updates took 3.6 and 5.8 s.
_UNSURE_SECONDS = 6.0


class Restoring:
    """Restores the metadata.

    Args:
        before: the complete original; no key was added, so writing it is right under both semantics.
        tell: shows progress to the user.
    """

    def __init__(self, desk: Desk, before: Mapping[str, str], tell: Callable[[str], None]) -> None:
        self._desk = desk
        self._before = dict(before)
        self._tell = tell
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Stop waiting for certainty, because the user is impatient; an uncertain result counts as failed."""
        self._hurried.set()

    async def run(self, settle_seconds: float, patience_seconds: float) -> bool:
        """Restore the metadata; True if reads have shown it.

        Args:
            settle_seconds: the read lag; only reads after it count.
            patience_seconds: how long to read, after that, before writing again.
        """
        self._tell(f"restoring the original metadata, and reading for {settle_seconds:g} s to verify it")
        for number in range(_TRIES):
            await self._desk.settled()
            if self._desk.is_unsure:
                await self._pause(_UNSURE_SECONDS)
                self._desk.is_unsure = False
            try:
                answer = await self._desk.write(self._before)
                if answer.verdict.kind is Kind.OK and await self._is_back(settle_seconds, patience_seconds):
                    return True
            except ProbeFailed as error:
                self._tell(f"restoring: try {number + 1} of {_TRIES} failed: {error}")
                await self._pause(2.0**number)
            if self._hurried.is_set():
                return False
        return False

    async def _is_back(self, settle_seconds: float, patience_seconds: float) -> bool:
        """Whether several reads in a row show it, after the read lag of the last write."""
        await self._pause(settle_seconds)
        if self._hurried.is_set():
            return False
        give_up_at = time.monotonic() + patience_seconds
        in_a_row = 0
        while in_a_row < _SAME_READS:
            if await self._desk.read() == self._before:
                in_a_row += 1
            elif time.monotonic() > give_up_at:
                return False
            else:
                in_a_row = 0
            await self._pause(_LOOK_SECONDS)
            if self._hurried.is_set():
                return False
        return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            pass
