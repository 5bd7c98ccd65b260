"""`make profile INSTRUCTIONS=yes`: how many instructions an update takes, by layer, counted by callgrind.

Callgrind cannot tell Python's functions apart. So each step runs in its own process, and a layer's instructions are the
difference between its step and the steps below it. The kernel's instructions are not counted.

The count covers the middle of one run, with all slots open and every batch full. A program runs fifty times slower
under callgrind. So anything that depends on the clock, such as a slow start, would otherwise be part of an update.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from benchmarks.contenders import METADATA, completion_ids
from benchmarks.report import insert
from benchmarks.running import server
from benchmarks.server import answer
from config import logs
from worker.api import Answer, Client, Kind, Verdict
from worker.api.judging import judge
from worker.changes import MetadataChange
from worker.cli.calling import collect_less
from worker.engine import Options, Worker, recorder
from worker.engine.applier import Completions
from worker.engine.outcome import Outcome
from worker.engine.patience import SHORT_WAIT_SECONDS
from worker.flow import SUCCEEDED, Flow, Permit
from worker.queue import Claim, Place, QueuedChange, Settlement, Store, open_queue
from worker.queue.memory import MemoryQueue

BATCH = 256
WARM_UP, COUNTED, LEFT = (
    16 * BATCH,
    8 * BATCH,
    4 * BATCH,
)  # updates: until all slots are open; the counted ones; after them
_COLLECTED = re.compile(rb"Collected : (\d+)")
_CONCURRENCY = 64
_LEASE_SECONDS = 3_600.0  # no heartbeat during the count


class Middle:
    """Sees how many updates are done, and marks the begin and the end of the count.

    Args:
        begin: called before the first counted update.
        end: called after the last one.
    """

    def __init__(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        self._at = {WARM_UP: begin, WARM_UP + COUNTED: end}
        self._done = 0

    def one_more(self) -> None:
        """An update begins."""
        if (tell := self._at.get(self._done)) is not None:
            tell()
        self._done += 1

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """A batch is about to be settled; see `worker.engine.results.Results`."""
        for _ in outcomes:
            self.one_more()


class _Prepared(MemoryQueue):
    """A queue that costs nothing: it hands out claims made in advance, and accepts every settlement."""

    def __init__(self, count: int) -> None:
        super().__init__()
        text = json.dumps(METADATA)
        self._unsettled = count
        self._claims = [
            Claim(each, number, (QueuedChange(number, each, None, "replace", text, 1.0),), 0.0)
            for number, each in enumerate(completion_ids(count), 1)
        ]

    async def claim(self, limit: int, *, place: Place = "oldest", **_terms: object) -> list[Claim]:
        """Hand out the next claims."""
        if place != "oldest":
            return []
        claimed, self._claims = self._claims[:limit], self._claims[limit:]
        return claimed

    async def settle(
        self, settlements: Sequence[Settlement], *, keep_seconds: float = 0.0, remember: bool = False
    ) -> list[Settlement]:
        """Accept all."""
        del keep_seconds, remember
        self._unsettled -= len(settlements)
        self._work.set()
        return []

    async def next_due_seconds(self) -> float | None:
        """Something is due until the last claim is settled."""
        return _LEASE_SECONDS if self._unsettled else None


class _Obliging:
    """A service without a network: it answers every update with the metadata that it set."""

    async def get(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """A replacement reads nothing."""
        raise NotImplementedError(completion_id, timeout_seconds)

    async def update(
        self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float, fresh: bool = False
    ) -> Answer:
        """Answer at once."""
        del completion_id, timeout_seconds, fresh
        await asyncio.sleep(0)
        return Answer(Verdict(Kind.OK, 200), dict(metadata))


async def _flow(count: int, middle: Middle, _base_url: str, _folder: Path) -> None:
    flow = Flow(max_concurrency=_CONCURRENCY, patience_seconds=SHORT_WAIT_SECONDS, clock=time.monotonic)
    running = deque[Permit]()
    for completion_id in completion_ids(count):
        middle.one_more()
        while (permit := flow.start(completion_id, "update")) is None:
            running.popleft().end(SUCCEEDED)
        running.append(permit)


async def _verdict(count: int, middle: Middle, _base_url: str, _folder: Path) -> None:
    body = json.dumps({"metadata": METADATA}).encode()
    for completion_id in completion_ids(count):
        middle.one_more()
        _, _, content = answer(completion_id.encode(), body).partition(b"\r\n\r\n")
        verdict, _ = judge(200, {"x-request-id": "req_bench"}, content, asked=completion_id)
        if verdict.kind is not Kind.OK:
            raise SystemExit(f"the canned answer is judged {verdict}")


async def _engine(count: int, middle: Middle, _base_url: str, _folder: Path) -> None:
    async with _Prepared(count) as queue:
        await _work(queue, _Obliging(), count, middle)


async def _store(count: int, middle: Middle, _base_url: str, folder: Path) -> None:
    async with open_queue(_url(folder)) as queue:
        await _work(queue, _Obliging(), count, middle)


async def _transport(count: int, middle: Middle, base_url: str, folder: Path) -> None:
    async with open_queue(_url(folder)) as queue, Client(base_url=base_url, api_key="sk-bench") as client:
        await _work(queue, client, count, middle)


async def _log(count: int, middle: Middle, base_url: str, folder: Path) -> None:
    logs.configure("json", "info")
    await _transport(count, middle, base_url, folder)


# The work of each step, and the steps that it includes.
Run = Callable[[int, Middle, str, Path], Coroutine[None, None, None]]
STEPS: Mapping[str, tuple[Run, Sequence[str]]] = {
    "flow": (_flow, ()),
    "engine": (_engine, ("flow",)),
    "store": (_store, ("engine",)),
    "verdict": (_verdict, ()),
    "transport": (_transport, ("store", "verdict")),
    "log": (_log, ("transport",)),
}
WITH_A_FILE = ("store", "transport", "log")


async def _work(queue: Store, client: Completions, count: int, middle: Middle) -> None:
    options = Options(drain=True, max_concurrency=_CONCURRENCY, batch_size=BATCH, lease_seconds=_LEASE_SECONDS)
    summary = await Worker(queue, client, options, results=middle).run()
    if summary.totals.applied != count:
        raise SystemExit(f"{summary.totals.applied} of {count} were applied: {summary}")


async def fill(folder: Path, count: int) -> None:
    """Put so many changes into the queue file of this folder."""
    async with open_queue(_url(folder)) as queue:
        await queue.put(MetadataChange(each, METADATA, "replace") for each in completion_ids(count))


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/queue.db"


def per_update(step: str, base_url: str) -> float:
    """Instructions that an update takes in this step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if step in WITH_A_FILE:
            asyncio.run(fill(folder, WARM_UP + COUNTED + LEFT))
        # Hashes of strings, and with them the order of some things, are the same in each run.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-m", "benchmarks.instructions", "--step", step, base_url, name]
        with (folder / "log").open("w+b") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
            assert process.stdout is not None  # noqa: S101 -- piped
            if process.stdout.readline():
                control = ["callgrind_control", "--instr=on", str(process.pid)]
                subprocess.run(control, check=True, capture_output=True)
            process.communicate(b"\n")
            log.seek(0)
            said = log.read()
    found = _COLLECTED.search(said)
    if process.returncode or found is None:
        raise SystemExit(f"{step}: {said[-2_000:].decode(errors='replace')}")
    return int(found[1]) / COUNTED


def run_step(step: str, base_url: str, folder: Path) -> None:
    """Warm up, report it, wait for a line, do the counted work, and end."""
    run, _ = STEPS[step]
    recorder._FLUSH_SECONDS = 3_600.0  # noqa: SLF001 -- at this speed no batch would be full in time
    collect_less()
    uvloop.run(run(WARM_UP + COUNTED + LEFT, Middle(_wait_for_the_counter, _be_gone), base_url, folder))
    raise SystemExit(f"{step} ended before all was counted")


def _wait_for_the_counter() -> None:
    print("warm", flush=True)
    sys.stdin.readline()


def _be_gone() -> NoReturn:
    os._exit(0)


def layers(counted: Mapping[str, float]) -> dict[str, float]:
    """The instructions of each layer, from those of the steps."""
    return {step: counted[step] - sum(counted[other] for other in others) for step, (_, others) in STEPS.items()}


def table(counted: Mapping[str, float]) -> str:
    """The layers as a table, with the share of each."""
    alone = layers(counted)
    whole = sum(alone.values())
    rows = [f"| {name} | {round(count):,} | {count / whole:.0%} |" for name, count in alone.items()]
    return "\n".join(
        ["| layer | instructions an update | |", "|---|---:|---:|", *rows, f"| all | {round(whole):,} | |"]
    )


def main() -> None:
    """Count each step, print the table, and keep it in docs/performance.md on request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--docs", type=Path, help="the page to write the table into")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, base_url, folder = arguments.step
        logs.configure("json", "critical")
        run_step(step, base_url, Path(folder))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: it counts the instructions (Debian: apt-get install valgrind)")
    with server() as answering:
        counted = {step: per_update(step, answering.base_url) for step in STEPS}
    print(table(counted))
    if arguments.docs:
        insert(arguments.docs, "instructions", table(counted))


if __name__ == "__main__":
    main()
