"""One contender against its own simulator: both as processes, with the simulator's counters sampled every second."""

import asyncio
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import aiohttp

from benchmarks.flow_peers import KEY, METADATA, completion_ids

WORKER = "metasync"

_ROOT = Path(__file__).parent.parent
_METASYNC = Path(sys.executable).parent / "metasync"
_START_SECONDS = 60.0  # for a process to come up on a busy machine
_STOP_SECONDS = 40.0  # longer than the worker's own grace
_ASK_SECONDS = 10.0
_LOOK_SECONDS = 0.02  # how often to look for the first request


class TrialFailed(Exception):
    """A contender or its simulator failed: there is nothing to report."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The conditions for every contender.

    Args:
        per_minute: the limit: a bucket of one second's burst.
        seconds: how long each works, from its first request on.
        update_latency: as `metasync simulator` takes it.
        rows: completions to update: more than can be done in the time.
        rejects_are_free: whether rejected requests take nothing from the bucket.
        hint: the form of ``Retry-After``, as `metasync simulator` takes it.
    """

    per_minute: float
    seconds: float
    update_latency: str
    rows: int
    rejects_are_free: bool = False
    hint: str = "seconds"


@dataclass(frozen=True, slots=True)
class Sample:
    """The simulator's counters, so long after the first request.

    Args:
        accepted: requests that the limit allowed.
        throttled: requests that were answered 429.
    """

    at_seconds: float
    accepted: int
    throttled: int


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one contender.

    Args:
        samples: one a second, the first at 0.
        started_while_closed: requests that came 0.1 s or more after a ``Retry-After`` was sent, and before its end.
        given_up: rows that failed for good.
        lost: rows that are neither updated, pending nor given up; None if the contender keeps no account.
    """

    name: str
    samples: Sequence[Sample]
    started_while_closed: int
    given_up: int
    lost: int | None

    def goodput(self, setup: Setup, since_seconds: float = 0.0) -> float | None:
        """Requests that the limit allowed, as a share of the limit; None if the time ends before `since_seconds`.

        It can exceed 1 by the content of the bucket at the start.
        """
        first, last = self._span(since_seconds)
        allowed = setup.per_minute / 60 * (last.at_seconds - first.at_seconds)
        return (last.accepted - first.accepted) / allowed if allowed else None

    def wasted(self, since_seconds: float = 0.0) -> float | None:
        """The share of the requests that were answered 429; None where there were none."""
        return wasted(*self._span(since_seconds))

    def _span(self, since_seconds: float) -> tuple[Sample, Sample]:
        last = self.samples[-1]
        return next((sample for sample in self.samples if sample.at_seconds >= since_seconds), last), last


def wasted(first: Sample, last: Sample) -> float | None:
    """The share of the requests between two samples that were answered 429; None where there were none."""
    throttled = last.throttled - first.throttled
    requests = throttled + last.accepted - first.accepted
    return throttled / requests if requests else None


@asynccontextmanager
async def _running(
    *command: str | Path, folder: Path, environment: Mapping[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in its own environment, without proxies. It is always ended, in order if possible."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith(("METASYNC_", "OPENAI_")) or name.upper().endswith("_PROXY"))
    }
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=kept | dict(environment), stdout=PIPE, stderr=stderr
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except BaseException:
                process.kill()
                await process.wait()
                raise


class Observed:
    """A simulator in its own process, seen through its control endpoints."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self._session = session
        self._control_url = base_url.removesuffix("/v1") + "/_simulator"

    async def ask(self, path: str) -> Any:  # noqa: ANN401 -- JSON
        """The answer of a control endpoint."""
        async with self._session.get(self._control_url + path) as response:
            response.raise_for_status()
            return await response.json()

    async def counters(self) -> dict[str, Any]:
        """The counters of requests, after a check that all are of the kind that contenders should make."""
        counters: dict[str, Any] = (await self.ask("/counters"))["counters"]
        odd = counters["requests"].keys() - {"update"}
        odd |= counters["requests"].get("update", {}).keys() - {"200", "429", "0"}
        if odd:
            raise TrialFailed(f"requests that were no updates, or were not answered 200 or 429: {counters['requests']}")
        return counters

    async def sample(self, at_seconds: float) -> Sample:
        """The counters now. A request in flight has passed the limit: a 429 comes at once."""
        counters = await self.counters()
        ended = sum(counters["requests"].get("update", {}).values())
        return Sample(at_seconds, ended + counters["in_flight"] - counters["throttled"], counters["throttled"])


@asynccontextmanager
async def _simulator(setup: Setup, folder: Path) -> AsyncIterator[Observed]:
    limit = ("--limit", f"{setup.per_minute:f}", "--retry-after", setup.hint)
    free = ("--rejects-are-free",) if setup.rejects_are_free else ()
    rest = ("--update-latency", setup.update_latency, "--seed", "1", "--completions", str(setup.rows))
    command = (_METASYNC, "simulator", *limit, *free, *rest)
    log = folder / "simulator.log"
    async with (
        _running(*command, folder=folder, environment={}, log=log) as process,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ASK_SECONDS)) as session,
    ):
        assert process.stdout is not None  # noqa: S101 -- piped above
        async with asyncio.timeout(_START_SECONDS):
            words = (await process.stdout.readline()).decode().split()
        base_url = next((word for word in words if word.startswith("http")), None)
        if base_url is None:
            raise TrialFailed(f"the simulator did not start: {_tail(log)}")
        yield Observed(base_url, session)


async def run_trial(name: str, setup: Setup) -> Trial:
    """Let one contender work against a fresh simulator for the time, then end both.

    Raises:
        TrialFailed: the contender ended before its time, or made requests that it should not.
    """
    run = _run_worker if name == WORKER else _run_peer
    try:
        with tempfile.TemporaryDirectory(prefix="metasync-flow-") as folder:
            async with _simulator(setup, Path(folder)) as simulator:
                return await run(name, setup, simulator, Path(folder))
    except TimeoutError as error:
        raise TrialFailed(f"{name}: a process did not start, answer or end in time") from error
    except aiohttp.ClientError as error:
        raise TrialFailed(f"{name}: the simulator went away: {error}") from error


async def _run_peer(name: str, setup: Setup, simulator: Observed, folder: Path) -> Trial:
    arguments = (name, simulator.base_url, str(setup.rows), str(setup.per_minute))
    command = (sys.executable, "-m", "benchmarks.flow_peers", *arguments)
    log = folder / "peer.log"
    async with _running(*command, folder=_ROOT, environment={}, log=log) as process:
        samples, closed = await _watch(name, setup, simulator, process, log)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), _STOP_SECONDS)
        if process.returncode != 0:
            raise TrialFailed(f"{name} ended with {process.returncode}: {_tail(log)}")
    return Trial(name, samples, closed, given_up=json.loads(output)["given_up"], lost=None)


async def _run_worker(name: str, setup: Setup, simulator: Observed, folder: Path) -> Trial:
    changes, log = folder / "changes.jsonl", folder / "worker.log"
    with changes.open("w") as file:
        for completion_id in completion_ids(setup.rows):
            file.write(json.dumps({"completion_id": completion_id, "metadata": METADATA, "mode": "replace"}) + "\n")
    environment = {
        "METASYNC_QUEUE_URL": f"sqlite:///{folder}/queue.db",
        "METASYNC_LOG_FORMAT": "json",
        "OPENAI_BASE_URL": simulator.base_url,
        "OPENAI_API_KEY": KEY,
    }
    await _metasync("enqueue", str(changes), folder=folder, environment=environment)
    bound = f"{setup.seconds + _START_SECONDS:f}"  # in case the parent dies and cannot stop it
    command = (_METASYNC, "run", "--max-duration", bound)
    async with _running(*command, folder=folder, environment=environment, log=log) as process:
        samples, closed = await _watch(name, setup, simulator, process, log)
        process.send_signal(signal.SIGTERM)
        if await asyncio.wait_for(process.wait(), _STOP_SECONDS) != 0:
            raise TrialFailed(f"{name} ended with {process.returncode}: {_tail(log)}")
    status = json.loads(await _metasync("status", "--json", folder=folder, environment=environment))
    updated = sum(metadata == METADATA for metadata in (await simulator.ask("/metadata")).values())
    lost = setup.rows - updated - status["pending"] - status["dead"]
    return Trial(name, samples, closed, given_up=status["dead"], lost=lost)


async def _metasync(*words: str, folder: Path, environment: Mapping[str, str]) -> bytes:
    """Run the command to its end; return its output."""
    log = folder / f"{words[0]}.log"
    async with _running(_METASYNC, *words, folder=folder, environment=environment, log=log) as process:
        output, _ = await asyncio.wait_for(process.communicate(), _START_SECONDS)
    if process.returncode != 0:
        raise TrialFailed(f"metasync {words[0]} ended with {process.returncode}: {_tail(log)}")
    return output


async def _watch(
    name: str, setup: Setup, simulator: Observed, process: asyncio.subprocess.Process, log: Path
) -> tuple[list[Sample], int]:
    """Sample every second, for the time from the first request on.

    Returns:
        the samples, and how many requests started while a ``Retry-After`` ran.
    """
    async with asyncio.timeout(_START_SECONDS):
        while not (await simulator.counters())["in_flight_peak"]:
            _check_running(name, process, log)
            await asyncio.sleep(_LOOK_SECONDS)
    started_at = time.monotonic()
    print(f"{name}: at work for {setup.seconds:g} s", file=sys.stderr, flush=True)
    samples = [Sample(0.0, 0, 0)]
    while samples[-1].at_seconds < setup.seconds:
        due_seconds = min(math.floor(samples[-1].at_seconds) + 1, setup.seconds)  # one that came late skips some
        await asyncio.sleep(max(0.0, started_at + due_seconds - time.monotonic()))
        _check_running(name, process, log)
        samples.append(await simulator.sample(time.monotonic() - started_at))
    started_while_closed = (await simulator.counters())["started_while_closed"]
    _check_running(name, process, log)
    return samples, started_while_closed


def _check_running(name: str, process: asyncio.subprocess.Process, log: Path) -> None:
    if process.returncode is not None:
        raise TrialFailed(f"{name} ended before its time, with {process.returncode}: {_tail(log) or 'no rows left'}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")[:500]
