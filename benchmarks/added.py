"""The time that the worker adds to a request: from claim to request and from answer to durable finish, at half load.

Run as a module, it is `metasync run` with a queue that notes when a claim and a finish returned. The server notes when
requests came and were answered. All processes of a machine share the monotonic clock.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.case import Contenders
from benchmarks.contenders import METADATA, completion_ids
from benchmarks.processes import pin
from benchmarks.running import Figures, Request, Server, Work, drain, postgres, queue_url, server
from config.settings import load
from worker.changes import MetadataChange
from worker.cli.job import Job, configure_logs, run_async
from worker.cli.session import exit_code, work
from worker.queue import Claim, Settlement, Store, open_queue

LOAD = 0.5  # of the rate of a drain
_TICK_SECONDS = 0.01
_LOOK_SECONDS = 0.1
_WARM_UP = 0.3  # of the requests: the worker starts with one at a time
COLUMNS = {
    "finish_p99_ms": "answer to durable finish, ms: p99",
    "finish_p50_ms": "p50",
    "request_p99_ms": "claim to request, ms: p99",
    "request_p50_ms": "p50",
    "waited_p50_ms": "enqueue to claim, ms: p50",
    "per_second": "updates/s",
}


class _Noting:
    """A queue that notes, by completion, when its claim and its finish returned."""

    def __init__(self, queue: Store) -> None:
        self._queue = queue
        self.claimed: dict[str, float] = {}
        self.finished: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the queue has
        return getattr(self._queue, name)

    async def claim(self, limit: int, **terms: Any) -> list[Claim]:  # noqa: ANN401 -- handed on as they are
        claims = await self._queue.claim(limit, **terms)
        now = time.monotonic()
        self.claimed.update((claim.completion_id, now) for claim in claims)
        return claims

    async def settle(
        self,
        settlements: Sequence[Settlement],
        **terms: Any,  # noqa: ANN401 -- likewise
    ) -> list[Settlement]:
        stale = await self._queue.settle(settlements, **terms)
        now = time.monotonic()
        self.finished.update((settlement.claim.completion_id, now) for settlement in settlements)
        return stale


@contextmanager
def contenders(updates: int) -> Iterator[Contenders]:
    """Each store, at half of its rate."""
    with server(recording=True) as answering, postgres() as store:
        yield {
            name: partial(_added, answering, Work(updates, store=place))
            for name, place in (("SQLite", "sqlite"), ("PostgreSQL", store))
        }


def _added(answering: Server, work: Work) -> Figures:
    per_second = drain(answering.base_url, work)["per_second"] * LOAD
    answering.take_record()
    with queue_url(work.store) as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.added", "noted.json"],
                env=work.environment(answering.base_url, url) | {"PYTHONPATH": str(Path(__file__).parents[1])},
                cwd=folder,
                stderr=log,
            )
            pin(process.pid, last=False)
            try:
                put = asyncio.run(_produce(url, work.completions, per_second))
            finally:
                process.terminate()
                code = process.wait()
        if code:
            raise SystemExit((folder / "log").read_text()[-2_000:])
        noted = json.loads((folder / "noted.json").read_text())
    return _figures(answering.take_record(), put, **noted)


async def _produce(url: str, count: int, per_second: float) -> dict[str, float]:
    """Enqueue at that pace, in another process than the worker; wait until all is done; return when each was put."""
    put: dict[str, float] = {}
    ids = iter(completion_ids(count))
    async with open_queue(url) as queue:
        started = time.monotonic()
        while len(put) < count:
            due = min(int((time.monotonic() - started) * per_second) + 1, count) - len(put)
            names = [next(ids) for _ in range(due)]
            await queue.put([MetadataChange(completion_id=name, metadata=METADATA, mode="replace") for name in names])
            put.update(dict.fromkeys(names, time.monotonic()))
            await asyncio.sleep(_TICK_SECONDS)
        while await queue.next_due_seconds() is not None:  # noqa: ASYNC110 -- another process empties it
            await asyncio.sleep(_LOOK_SECONDS)
    return put


def _figures(
    record: Sequence[Request], put: dict[str, float], *, claimed: dict[str, float], finished: dict[str, float]
) -> Figures:
    counted = record[int(len(record) * _WARM_UP) :]
    spans = {
        "waited": [claimed[request.completion_id] - put[request.completion_id] for request in counted],
        "request": [request.arrived_at - claimed[request.completion_id] for request in counted],
        "finish": [finished[request.completion_id] - request.answered_at for request in counted],
    }
    figures = {"per_second": len(counted) / (counted[-1].answered_at - counted[0].answered_at)}
    for name, seconds in spans.items():
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        figures |= {f"{name}_p50_ms": cuts[49] * 1_000, f"{name}_p99_ms": cuts[98] * 1_000}
    return figures


async def _run(job: Job, noted: Path) -> int:
    configure_logs(job.settings)
    async with open_queue(job.settings.queue_url) as queue:
        noting = _Noting(queue)
        summary = await work(noting, job)
    text = json.dumps({"claimed": noting.claimed, "finished": noting.finished})
    noted.write_text(text)  # noqa: ASYNC240 -- all is done
    return exit_code(summary, job)


def main() -> None:
    """Work as `metasync run` does until told to stop, then write the notes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.added", description=__doc__)
    parser.add_argument("noted", type=Path)
    arguments = parser.parse_args()
    sys.exit(run_async(_run(Job(load().settings, load, drain=False), arguments.noted)))


if __name__ == "__main__":
    main()
