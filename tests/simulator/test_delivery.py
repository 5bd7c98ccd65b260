"""The bytes on the wire: answers sent twice, one request late, event by event, or a reset."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.simulator.http import Clock, Http
from worker.simulator import Answer, Fault, Options, Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(seed=1)) as simulator:
        simulator.seed_completions(f"chatcmpl-{number}" for number in range(1, 6))
        yield simulator


class Wire:
    """One connection, on which bytes are written and answers are read, asked for or not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, simulator: Simulator) -> "Wire":
        return cls(*await asyncio.open_connection(*simulator.base_url.split("/")[2].split(":")))

    async def ask(self, number: int) -> None:
        line = f"GET /v1/chat/completions/chatcmpl-{number} HTTP/1.1\r\n"
        self._writer.write(f"{line}Host: x\r\nAuthorization: Bearer k\r\n\r\n".encode())
        await self._writer.drain()

    async def read(self) -> Any:
        """The next answer's body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        [length] = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return json.loads(await self._reader.readexactly(int(length)))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def test_a_duplicate_shifts_all_later_answers_of_the_connection(simulator: Simulator) -> None:
    wire = await Wire.to(simulator)
    simulator.fail_next("duplicate")
    read = []
    for number in (1, 2, 3):
        await wire.ask(number)
        read.append((await wire.read())["id"])
    assert read == ["chatcmpl-1", "chatcmpl-1", "chatcmpl-2"]
    assert (await wire.read())["id"] == "chatcmpl-3"
    await wire.close()
    assert simulator.counters.count("get", 200) == 3


async def test_a_duplicate_comes_unasked(simulator: Simulator) -> None:
    wire = await Wire.to(simulator)
    simulator.fail_next("duplicate")
    await wire.ask(1)
    assert await wire.read() == await wire.read()
    await wire.close()


async def test_shifted_answers_come_one_request_late_and_leave_nothing_unread(simulator: Simulator) -> None:
    wire = await Wire.to(simulator)
    other = await Wire.to(simulator)
    simulator.fail_next("shifted")
    read = []
    for number in (1, 2, 3, 4):
        await wire.ask(number)
        read.append((await wire.read())["id"])
        await other.ask(5)
        assert (await other.read())["id"] == "chatcmpl-5"
    assert read == ["chatcmpl-1", "chatcmpl-1", "chatcmpl-2", "chatcmpl-3"]
    await wire.close()
    await other.close()


async def test_shifts_add_up_to_one(simulator: Simulator) -> None:
    wire = await Wire.to(simulator)
    simulator.options = replace(simulator.options, faults=(Fault("shifted"),))
    read = []
    for number in (1, 2, 3):
        await wire.ask(number)
        read.append((await wire.read())["id"])
    assert read == ["chatcmpl-1", "chatcmpl-1", "chatcmpl-2"]
    await wire.close()


async def test_a_pooled_connection_answers_for_another_completion(simulator: Simulator, http: Http) -> None:
    simulator.fail_next("shifted")
    shown = [(await http.update(simulator, f"chatcmpl-{number}", {"n": str(number)})).json() for number in (1, 2, 3)]
    assert [item["id"] for item in shown] == ["chatcmpl-1", "chatcmpl-1", "chatcmpl-2"]
    assert simulator.metadata("chatcmpl-3") == {"n": "3"}


RESETS = {
    "nothing done": (Fault("reset"), {}),
    "done": (Fault("reset", done=True), {"n": "1"}),
    "an answer that is lost": (Fault(Answer(200, b"{}", delivery="reset")), {}),
}


@pytest.mark.parametrize(("fault", "after"), RESETS.values(), ids=RESETS.keys())
async def test_a_reset_is_one_at_the_level_of_tcp(simulator: Simulator, fault: Fault, after: dict[str, str]) -> None:
    simulator.fail_next(fault)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await session.post(
                f"{simulator.base_url}/chat/completions/chatcmpl-1",
                json={"metadata": {"n": "1"}},
                headers={"Authorization": "Bearer k"},
            )
    assert simulator.metadata("chatcmpl-1") == after
    assert simulator.counters.requests == {"update": {0: 1}}


async def test_a_streamed_completion_is_named_at_once_and_stored_when_the_stream_and_the_lag_are_over() -> None:
    clock = Clock()
    pauses: asyncio.Queue[float] = asyncio.Queue()
    go_on = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        pauses.put_nowait(seconds)
        await go_on.acquire()
        clock.now += seconds

    options = Options(text="a b", stream_seconds=8, lag_seconds=1)
    async with (
        Simulator(options, clock=clock, sleep=sleep) as simulator,
        aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session,
        session.post(
            f"{simulator.base_url}/chat/completions",
            json={
                "model": "m",
                "messages": [{"role": "user", "content": "Write."}],
                "store": True,
                "stream": True,
            },
        ) as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        first = json.loads((await response.content.readuntil(b"\n\n")).removeprefix(b"data: "))
        url = f"{simulator.base_url}/chat/completions/{first['id']}"
        for _ in range(4):  # role, two words, end, [DONE]
            async with session.get(url) as found:
                assert found.status == 404
            assert await pauses.get() == 2
            go_on.release()
            await response.content.readuntil(b"\n\n")
        assert await response.content.read() == b""
        for passed, status in ((0.0, 404), (1.0, 200)):
            clock.now += passed
            async with session.get(url) as found:
                assert found.status == status


async def test_a_stream_can_be_cut_off_and_its_completion_is_stored(simulator: Simulator, http: Http) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Write."}], "store": True, "stream": True}
    simulator.fail_next("cut_off")
    with pytest.raises(aiohttp.ClientPayloadError):
        await http.call("POST", f"{simulator.base_url}/chat/completions", body)
    assert len(simulator.all_metadata()) == 6
