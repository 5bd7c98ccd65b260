"""Several worker processes on one queue, paused under load while the service counts their requests."""

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e.processes import KEY, Command, RunningSimulator, running_simulator, stopped
from tests.log_lines import read_line
from worker import MetadataChange, open_queue
from worker.queue import Store, pause, resume

_COMPLETIONS = 500
_BOUND_SECONDS = 300.0
_STILL_SECONDS = 1.0  # how long nothing is seen to start; the promise has no end


class Crowd:
    """Workers, each with its log in a file.

    Args:
        folder: for the logs.
        url: of the queue.
    """

    def __init__(self, folder: Path, url: str, workers: int) -> None:
        self._folder = folder
        self._url = url
        self._workers = workers
        self._puts = 0
        self.quiet_seconds: list[float] = []  # of each pause: until all had said so
        self.last_start_seconds: list[float] = []  # of each pause: until the last request started
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._dice = random.Random(5)

    async def pause_again_and_again(self, rounds: int) -> None:
        """Pause and resume under load; in each round one worker is killed and started anew. Then all is to be done."""
        with ExitStack() as running:
            simulator = running.enter_context(running_simulator("--latency", "20ms-200ms"))
            async with open_queue(self._url) as queue:
                await self._rounds(queue, simulator, running, rounds)

    async def _rounds(self, queue: Store, simulator: RunningSimulator, running: ExitStack, rounds: int) -> None:
        for number in range(self._workers):
            running.enter_context(self.started(simulator, number))
        for round_ in range(rounds):
            await self.put(queue, simulator)
            before = simulator.requests()
            while simulator.requests() < before + self._workers:
                await asyncio.sleep(0.05)
            reason, paused_at = f"round {round_}", time.monotonic()
            await pause(queue, "ana@host", reason)
            victim = self._dice.randrange(self._workers)
            self._processes[victim].kill()
            self._processes[victim].wait()
            running.enter_context(self.started(simulator, victim))
            last_start_at = await self.quiet(reason, simulator)
            self.last_start_seconds.append(last_start_at - paused_at)
            self.quiet_seconds.append(time.monotonic() - paused_at)
            seen = simulator.requests()
            await asyncio.sleep(_STILL_SECONDS)
            assert simulator.requests() == seen
            await resume(queue)
        async with asyncio.timeout(_BOUND_SECONDS):
            while (await queue.status()).pending:
                await asyncio.sleep(0.1)
        status = await queue.status()
        assert (status.pending, status.dead) == (0, 0)
        for number in range(_COMPLETIONS):
            assert simulator.ask(f"/metadata/chatcmpl-{number}") == {"put": str(self._puts)}
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            assert process.wait(_BOUND_SECONDS) == 0

    async def put(self, queue: Store, simulator: RunningSimulator) -> None:
        """Have something to do for each completion."""
        self._puts += 1
        ids = [f"chatcmpl-{number}" for number in range(_COMPLETIONS)]
        if self._puts == 1:
            simulator.ask("/seed", {"ids": ids})
        await queue.put([MetadataChange(each, {"put": str(self._puts)}, "replace") for each in ids])

    @contextmanager
    def started(self, simulator: RunningSimulator, number: int) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of this number, with an empty log."""
        settings = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": simulator.base_url,
            "METASYNC_QUEUE_URL": self._url,
            "METASYNC_MAX_CONCURRENCY": "4",
            "METASYNC_BATCH_SIZE": "8",
            "METASYNC_LEASE": "5s",
            "METASYNC_LOG_FORMAT": "json",
        }
        command = Command(self._folder, settings)
        with self._log(number).open("wb") as log, stopped(command.start("run", stderr=log)) as process:
            self._processes[number] = process
            yield process

    async def quiet(self, reason: str, simulator: RunningSimulator) -> float:
        """Wait until each running worker has logged, for this pause, that nothing of it is in flight.

        Returns:
            By `time.monotonic`, when a request was last seen to have started.
        """
        seen, last_start_at = simulator.requests(), time.monotonic()
        async with asyncio.timeout(_BOUND_SECONDS):
            while not all(self._is_quiet(number, reason) for number in self._processes):
                await asyncio.sleep(0.05)
                if (now := simulator.requests()) > seen:
                    seen, last_start_at = now, time.monotonic()
        return last_start_at

    def forget(self) -> None:
        """No worker runs any more."""
        self._processes.clear()

    def _is_quiet(self, number: int, reason: str) -> bool:
        *lines, _ = self._log(number).read_bytes().split(b"\n")  # the last is not whole yet
        said = (read_line(line) for line in lines if b'"worker.quiet"' in line)
        return any(event["reason"] == reason for event in said)

    def _log(self, number: int) -> Path:
        return self._folder / f"worker-{number}.log"
