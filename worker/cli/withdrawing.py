"""Withdraw pending changes: count them, confirm, report; also report changes that a worker holds."""

import asyncio
from dataclasses import dataclass

from worker.cli import loop, signals
from worker.cli.batches import NO_SUCH_BATCH, find
from worker.cli.confirming import confirmed, grown
from worker.cli.exits import Exit
from worker.cli.failing import failing_as_json
from worker.cli.flags import Configured
from worker.cli.output import report, report_json
from worker.flags import Flag
from worker.queue import PendingSelection, QueueUnavailable, Store, Withdrawn, open_queue

# A request takes about a second. A change that fails meanwhile is pending again and is withdrawn, too; a change that a
# worker only holds is released or done soon.
YES = Flag("do not ask for confirmation, however many there are")
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(slots=True)
class Withdrawal:
    """The result of a withdrawal.

    Args:
        withdrawn: how many changes were withdrawn.
        in_flight: how many a worker holds and will finish.
        error: why it ended early; null if it did not.
    """

    withdrawn: int = 0
    in_flight: int = 0
    error: str | None = None
    exit_code: Exit = Exit.DONE


def withdraw(arguments: Configured, selection: PendingSelection, *, yes: bool, json: bool) -> int:
    """Withdraw the selected changes after confirmation; return the exit code."""
    with failing_as_json(lambda error, code: Withdrawal(error=error, exit_code=code), wanted=json):
        settings = arguments.load().settings
        url, timeout_seconds = settings.queue_url, settings.store_timeout
        count = loop.run(_count(url, timeout_seconds, selection))
        if count is None:
            done = Withdrawal(error=NO_SUCH_BATCH, exit_code=Exit.NOT_ALL)
        elif count and not yes and not confirmed(count, "pending changes would be withdrawn"):
            done = Withdrawal(error="not confirmed", exit_code=Exit.USAGE)
        else:
            done = loop.run(_withdraw(url, timeout_seconds, selection, None if yes else count))
            if not json:
                report(_words(done))
    if json:
        report_json(done)
    return done.exit_code


async def count_pending(queue: Store, selection: PendingSelection) -> int | None:
    """Return how many pending changes are selected; None, with a message, for an unknown batch."""
    if selection.batch is not None:
        batch = await find(queue, selection.batch)
        if batch is None:
            return None
        if selection.completion_id is None and selection.change_id is None:
            return batch.pending
    count = 0
    async for _ in queue.pending_changes(selection):
        count += 1
    return count


async def _count(url: str, timeout_seconds: float, selection: PendingSelection) -> int | None:
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        return await count_pending(queue, selection)


async def _withdraw(url: str, timeout_seconds: float, selection: PendingSelection, shown: int | None) -> Withdrawal:
    """Withdraw, and repeat while a worker holds some of the changes."""
    done = Withdrawal()
    stop = asyncio.Event()
    async with open_queue(url, timeout_seconds=timeout_seconds, create=False) as queue:
        if shown is not None:
            done.error = grown(await count_pending(queue, selection) or 0, shown)
            if done.error is not None:
                done.exit_code = Exit.RUN_AGAIN
                return done
        with signals.stopping(stop.set, lambda: _cut_off(done)):
            for pause in (*_PAUSES_SECONDS, None):
                try:
                    is_whole = await _withdraw_once(queue, selection, done, stop)
                except QueueUnavailable as error:
                    if not done.withdrawn:
                        raise
                    done.error = f"metasync: {error}"
                    break
                if not is_whole:
                    done.error = "interrupted: run the same command again to continue"
                    break
                if not done.in_flight or pause is None or await _stopped(stop, pause):
                    break
    if done.in_flight or done.error is not None:
        done.exit_code = Exit.RUN_AGAIN
    return done


async def _withdraw_once(queue: Store, selection: PendingSelection, done: Withdrawal, stop: asyncio.Event) -> bool:
    """Withdraw the selected changes, and add to the totals; return whether all were handled, or a signal came."""
    before = done.withdrawn
    is_whole = True

    def note(part: Withdrawn) -> None:
        done.withdrawn, done.in_flight = before + part.withdrawn, part.in_flight

    def go_on(part: Withdrawn) -> bool:
        nonlocal is_whole
        note(part)
        is_whole = not stop.is_set()
        return is_whole

    note(await queue.withdraw(selection, go_on=go_on))
    return is_whole


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False


def _cut_off(done: Withdrawal) -> str:
    """Return what is known after an interruption: the call under way may have withdrawn more."""
    return f"interrupted twice: at least {done.withdrawn:,} withdrawn; run the same command again to continue"


def _words(done: Withdrawal) -> str:
    if done.error is not None and not done.withdrawn:
        return done.error
    words = f"{done.withdrawn:,} withdrawn"
    if done.in_flight:
        words += (
            f", {done.in_flight:,} in flight: a worker finishes them; run the same command again for those that fail"
        )
    return words if done.error is None else f"{words}; {done.error}"
