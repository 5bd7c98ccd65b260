"""An idle daemon, and one change: from the put's answer to the request at the service; and what idling costs."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from benchmarks.case import Contenders
from benchmarks.contenders import METADATA, completion_ids
from benchmarks.processes import Watched, pin
from benchmarks.running import METASYNC, Figures, Server, Work, postgres, queue_url, server
from tests.queue.redis_server import DURABLE, running
from worker.changes import MetadataChange
from worker.queue import Store, open_queue

COLUMNS = {"p50_ms": "put to request, ms: p50", "p99_ms": "p99", "idle_percent": "idle, % of a core"}
_PAUSE_SECONDS = (0.3, 1.7)  # between two changes: at any moment of a second
_START_SECONDS = 60.0
_SETTLING_SECONDS = 2.0
_IDLE_SECONDS = 20.0


@contextmanager
def contenders(changes: int) -> Iterator[Contenders]:
    """Each store."""
    with (
        server(recording=True) as answering,
        postgres() as store,
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), DURABLE) as valkey,
    ):
        places: dict[str, Callable[[], AbstractContextManager[str]]] = {
            "SQLite": partial(queue_url, "sqlite"),
            "PostgreSQL": partial(queue_url, store),
            "Valkey": lambda: nullcontext(valkey.url()),
        }
        yield {name: partial(_woken, answering, Work(max(changes, 2)), place) for name, place in places.items()}


def _woken(answering: Server, work: Work, place: Callable[[], AbstractContextManager[str]]) -> Figures:
    answering.take_record()
    with place() as url, tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("wb") as log:
        environment = work.environment(answering.base_url, url)
        daemon = Watched([METASYNC, "run"], environment=environment, folder=name, log=log)
        pin(daemon.process.pid, last=False)
        try:
            put = asyncio.run(_produce(answering, url, work.completions))
            arrived = {request.completion_id: request.arrived_at for request in answering.take_record()}
            idle_seconds = min(_IDLE_SECONDS, work.completions)
            time.sleep(_SETTLING_SECONDS)
            before, began = daemon.cpu_seconds_at(time.monotonic()), time.monotonic()
            time.sleep(idle_seconds)
            idle = (daemon.cpu_seconds_at(time.monotonic()) - before) / (time.monotonic() - began)
        finally:
            daemon.stop()
    cuts = statistics.quantiles([arrived[name] - at for name, at in put.items()], n=100, method="inclusive")
    return {"p50_ms": cuts[49] * 1_000, "p99_ms": cuts[98] * 1_000, "idle_percent": idle * 100}


async def _produce(answering: Server, url: str, count: int) -> dict[str, float]:
    """Put one at a time, once the daemon works; say when each put had its answer."""
    put: dict[str, float] = {}
    first, *names = completion_ids(count + 1)
    dice = random.Random(1)  # noqa: S311 -- no secret
    async with open_queue(url) as queue:
        await _put(queue, first)
        give_up_at = time.monotonic() + _START_SECONDS
        while not answering.take_record():
            if time.monotonic() > give_up_at:
                raise SystemExit("the daemon does not work")
            await asyncio.sleep(0.1)
        for name in names:
            await asyncio.sleep(dice.uniform(*_PAUSE_SECONDS))
            put[name] = await _put(queue, name)
        await asyncio.sleep(_SETTLING_SECONDS)
    return put


async def _put(queue: Store, completion_id: str) -> float:
    await queue.put([MetadataChange(completion_id=completion_id, metadata=METADATA, mode="replace")])
    return time.monotonic()
