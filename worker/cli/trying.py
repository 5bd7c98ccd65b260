"""A pull and a comparison in one process, for the demo."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing

from worker.changes import MetadataChange
from worker.changes.files import ChangeFile
from worker.cli.job import Job
from worker.cli.syncing import asking
from worker.sync.comparing import Comparison, Counts, Difference
from worker.sync.lines import JsonLines
from worker.sync.pulling import Pull
from worker.sync.spool import Spool
from worker.sync.target import Target


async def pulled(job: Job, completion_ids: Sequence[str], path: str) -> list[MetadataChange]:
    """Pull these completions into a file, and read it."""
    target = Target.open(path, JsonLines(), gzipped=False)
    with closing(Spool()) as spool, closing(target):
        spool.add_ids(completion_ids)
        async with asking(job) as (asked, client):
            await asked.run(Pull(asked, client, target, tell=_ignore).named(spool))
    with ChangeFile.open(path) as file:
        return [item for _, item in file if isinstance(item, MetadataChange)]


async def compared(job: Job, changes: Sequence[MetadataChange]) -> Counts:
    """Compare these changes with the service, whose simulated reads do not lag."""
    with closing(Spool()) as spool:
        spool.add(changes)
        async with asking(job) as (asked, client):
            comparison = Comparison(
                asked, client, spool, semantics="unknown", read_lag_seconds=0, now=time.monotonic, sleep=asyncio.sleep
            )
            await asked.run(comparison.run(_ignore_difference))
        return comparison.counts


def _ignore(_completion_id: str, _sentence: str) -> None:
    """Ignore a missing completion: the demo's check notices it."""


def _ignore_difference(_: Difference) -> None:
    """Ignore the difference: the counts include it."""
