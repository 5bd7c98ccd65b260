"""A pull and a comparison in one process, for the demo: what the verbs do, without their files and words."""

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
    """Pull these into a file, and read it."""
    target = Target.open(path, JsonLines(), gzipped=False)
    with closing(Spool()) as spool, closing(target):
        spool.add_ids(completion_ids)
        async with asking(job) as (asked, client):
            await asked.run(Pull(asked, client, target, tell=_ignore).named(spool))
    with ChangeFile.open(path) as file:
        return [item for _, item in file if isinstance(item, MetadataChange)]


async def compared(job: Job, changes: Sequence[MetadataChange]) -> Counts:
    """Compare these with what is there now; the simulated service's reads do not lag."""
    with closing(Spool()) as spool:
        spool.add(changes)
        async with asking(job) as (asked, client):
            comparison = Comparison(
                asked, client, spool, semantics="unknown", read_lag_seconds=0, now=time.monotonic, sleep=asyncio.sleep
            )
            await asked.run(comparison.run(_ignore_difference))
        return comparison.counts


def _ignore(_completion_id: str, _sentence: str) -> None:
    """Whatever is not there is missed by the check."""


def _ignore_difference(_: Difference) -> None:
    """The counts say it."""
