"""A web server in the test's process, so that a test can break what it shows."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import parse_headers
from io import BytesIO
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from worker.api import Client
from worker.engine import Options, Worker
from worker.queue import Store, open_queue
from worker.simulator import Simulator
from worker.web import serving


@dataclass(frozen=True)
class Answer:
    """What came back until the connection ended."""

    status: int
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Inside:
    """A worker at work, and where it serves."""

    worker: Worker
    queue: Store
    port: int

    async def send(self, request: bytes) -> Answer:
        """Send this as it stands; wait until the other end closes."""
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(request)
                text = BytesIO(await reader.read())
            finally:
                writer.close()
        return Answer(int(text.readline().split()[1]), parse_headers(text), text.read())

    async def ask(self, what: str, *headers: str, body: str = "") -> Answer:
        """Ask for something, such as ``GET /livez``."""
        lines = [f"{what} HTTP/1.1", *(headers or ["Host: 127.0.0.1"]), "", body]
        return await self.send("\r\n".join(lines).encode())

    async def ask_json(self, what: str) -> tuple[int, Any]:
        answer = await self.ask(what)
        return answer.status, json.loads(answer.body)

    @asynccontextmanager
    async def events(self, token: str = "") -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What an open page is sent, one document after the other."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            ClientSession(headers=headers) as session,
            session.get(f"http://127.0.0.1:{self.port}/events") as stream,
        ):
            yield (json.loads(line.removeprefix(b"data: ")) async for line in stream.content if line[:6] == b"data: ")


@asynccontextmanager
async def a_worker_inside(
    folder: Path, *, token: str | None = None, show_values: bool = False, url: str | None = None
) -> AsyncIterator[Inside]:
    """Run a worker that has nothing to do, and serve it."""
    async with (
        Simulator() as simulator,
        open_queue(url or f"sqlite:///{folder}/queue.db") as queue,
        Client(base_url=simulator.base_url, api_key="sk-test") as client,
    ):
        worker = Worker(queue, client, Options())
        working = asyncio.create_task(worker.run())
        try:
            async with serving(worker, queue, host="127.0.0.1", port=0, token=token, show_values=show_values) as port:
                while worker.flow_state() is None:
                    await asyncio.sleep(0.01)
                yield Inside(worker, queue, port)
        finally:
            worker.stop()
            await working


@contextmanager
def a_worker_in_a_thread(folder: Path, *, token: str | None = None) -> Iterator[Inside]:
    """The same, for a test that drives a browser, and so cannot await."""
    ready: Future[tuple[Inside, Callable[[], object]]] = Future()

    async def serve() -> None:
        over = asyncio.Event()
        end = partial(asyncio.get_running_loop().call_soon_threadsafe, over.set)
        async with a_worker_inside(folder, token=token) as inside:
            ready.set_result((inside, end))
            await over.wait()

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, serve())
        inside, end = ready.result(60)
        try:
            yield inside
        finally:
            end()
            running.result(60)
