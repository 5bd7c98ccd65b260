"""Check the queue: whether its store works, what it may lose, and its clock. Nothing is created or changed."""

import os
import time

from config.settings import Settings, place_of
from worker.cli.checkup.check import Check, failure, ok, warning
from worker.queue import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, open_queue

_NONE = "there is no queue at "
_FAR_SECONDS = 5.0


async def check_queue(settings: Settings) -> list[Check]:
    """Open the queue, if it exists, and check it."""
    place = place_of(settings.queue_url)
    try:
        async with open_queue(settings.queue_url, timeout_seconds=settings.store_timeout, create=False) as queue:
            status = await queue.status()
            about = "about " if status.approximate else ""
            checks = [ok("queue", f"{place}: {about}{status.pending:,} pending, {status.dead:,} dead letters")]
            checks += [warning("queue", sentence) for sentence in queue.warnings]
            asked_at = time.time()
            shown = await queue.unix_time()
            checks.append(_clock(shown, asked_at, time.time()))
            return checks
    except QueueMisnamed as error:
        if str(error).startswith(_NONE):
            return [_missing(settings.queue_url, place)]
        return [failure("queue", str(error), "correct METASYNC_QUEUE_URL")]
    except QueueUnusable as error:
        return [failure("queue", str(error), "mend that, or correct METASYNC_QUEUE_URL")]
    except QueueUnavailable as error:
        return [failure("queue", str(error), "is the store running, and can this machine reach it?")]
    except QueueError as error:
        return [failure("queue", str(error))]


def _missing(url: str, place: str) -> Check:
    if url.startswith("sqlite:"):
        from worker.queue.sqlite.file import QueueFile  # noqa: PLC0415 -- loaded only when needed

        folder = QueueFile(url).path.parent
        if not folder.is_dir():
            return failure("queue", f"there is no directory {folder}", "create it, or set METASYNC_QUEUE_URL")
        if not os.access(folder, os.W_OK):
            return failure("queue", f"{folder} cannot be written to", "the queue's file is created there: allow it")
    detail = f"there is none yet at {place}"
    return warning("queue", detail, "`metasync enqueue` and `metasync apply` create it")


def _clock(shown: float, asked_at: float, answered_at: float) -> Check:
    """Compare the store's clock with ours, within the duration of the query."""
    ahead = shown - (asked_at + answered_at) / 2
    if abs(ahead) - (answered_at - asked_at) / 2 <= _FAR_SECONDS:
        return ok("queue clock", f"within {_FAR_SECONDS:g} s of ours")
    return warning(
        "queue clock",
        f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} ours",
        "leases and waits use the store's clock, but displayed ages may be wrong: let NTP set both clocks",
    )
