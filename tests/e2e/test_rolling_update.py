"""A rolling update replaces the workers one by one under load, without loss or interruption."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path

from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator, stopped
from tests.queue.postgres_server import new_database
from worker import MetadataChange, open_queue

WORKERS = 3
REPLACED = 2
COMPLETIONS = 2_000
_LONGEST_PAUSE_SECONDS = 2.0
_LOOK_SECONDS = 0.05
_BOUND_SECONDS = 60.0


class Deployment:
    """Workers as processes, in the order in which they were started.

    Args:
        url: of the queue.
    """

    def __init__(self, folder: Path, simulator: RunningSimulator, url: str) -> None:
        self._folder = folder
        self._command = Command(
            folder,
            {
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": simulator.base_url,
                "METASYNC_QUEUE_URL": url,
                "METASYNC_LEASE": "10m",  # one that is not given back outlasts the test
                "METASYNC_BATCH_SIZE": "16",
                "METASYNC_MAX_CONCURRENCY": "4",
                "METASYNC_LOG_FORMAT": "json",
            },
        )
        self._workers: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._started = 0

    async def start(self) -> None:
        """Start one more, and wait until it works."""
        self._started += 1
        path = self._folder / f"worker-{self._started}.log"
        with path.open("wb") as log:
            self._workers.append((self._command.start("run", stderr=log), path))
        async with asyncio.timeout(_BOUND_SECONDS):
            while "change.applied" not in path.read_text():
                assert self._workers[-1][0].poll() is None, path.read_text()[-2000:]
                await asyncio.sleep(_LOOK_SECONDS)

    async def stop_oldest(self) -> None:
        """End the worker that has run for longest, as an orchestrator does."""
        worker, path = self._workers.pop(0)
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.communicate, timeout=_BOUND_SECONDS)
        assert worker.returncode == 0, path.read_text()[-2000:]

    def kill(self) -> None:
        """See to it that none is left."""
        for worker, _ in self._workers:
            with stopped(worker):
                worker.kill()


class Pauses:
    """The longest time without a further request, of those that the simulator counts.

    It is measured between two looks that saw the same count: a look that came late finds that the count went on.
    """

    def __init__(self, simulator: RunningSimulator) -> None:
        self._simulator = simulator
        self.longest_seconds = 0.0

    async def watch(self) -> None:
        """Look until cancelled."""
        since, seen = time.monotonic(), -1
        while True:
            count = await asyncio.to_thread(self._simulator.requests)
            if count != seen:
                since, seen = time.monotonic(), count
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - since)
            await asyncio.sleep(_LOOK_SECONDS)


async def test_a_rolling_update_loses_nothing_and_makes_no_pause(tmp_path: Path) -> None:
    changes = [MetadataChange(f"chatcmpl-{number:06d}", {"n": str(number)}) for number in range(1, COMPLETIONS + 1)]
    with running_simulator("--seed", "1", "--latency", "100ms-300ms") as simulator:
        simulator.ask("/seed", {"count": COMPLETIONS})
        async with new_database() as url, open_queue(url) as queue:
            await queue.put(changes)
            deployment = Deployment(tmp_path, simulator, url)
            try:
                for _ in range(WORKERS):
                    await deployment.start()
                pauses = Pauses(simulator)
                watching = asyncio.create_task(pauses.watch())
                for _ in range(REPLACED):
                    await deployment.stop_oldest()
                    await deployment.start()
                watching.cancel()
                assert (await queue.status()).in_flight  # what is asked below can be answered otherwise
                for _ in range(WORKERS):
                    await deployment.stop_oldest()
                status = await queue.status()
                assert status.pending  # there was always something to do
                assert status.in_flight == 0  # none of all those that have ended has kept a lease
                await deployment.start()
                simulator.ask("/options", {"latency": 0.0})
                async with asyncio.timeout(_BOUND_SECONDS):
                    while (await queue.status()).pending:
                        await asyncio.sleep(_LOOK_SECONDS)
                await deployment.stop_oldest()
            finally:
                deployment.kill()
            assert (await queue.status()).dead == 0
        assert simulator.ask("/metadata") == {change.completion_id: change.metadata for change in changes}
        assert simulator.ask("/counters")["violations"] == []
    assert pauses.longest_seconds < _LONGEST_PAUSE_SECONDS
