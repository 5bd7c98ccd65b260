"""The free connections that the direct transport keeps for the next call."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from yarl import URL

from tests.api.servers import always, response, serving
from worker.api import Answer, Kind, Verdict
from worker.api.connector import Connector
from worker.api.direct import DirectTransport
from worker.api.transport import Headers, Request

LONG = 30.0  # seconds: nothing here comes near it


@asynccontextmanager
async def transport_to(port: int, *, limit: int = 10) -> AsyncIterator[DirectTransport]:
    transport = DirectTransport(URL(f"http://127.0.0.1:{port}"), Connector(limit=limit))
    try:
        yield transport
    finally:
        await transport.close()


def believe(status: int, _: Mapping[str, str], content: bytes | None) -> tuple[Answer, bool]:
    return Answer(Verdict(Kind.OK, status), body=content or b""), True


async def ask(transport: DirectTransport) -> Answer:
    return await transport.exchange(Request("GET", "/", Headers({})), LONG, believe)


async def test_the_next_call_takes_the_connection_of_the_last() -> None:
    async with serving(always(response())) as server, transport_to(server.port) as transport:
        for _ in range(5):
            await ask(transport)
        assert server.connections == 1


async def test_calls_beyond_the_limit_wait_for_a_connection_and_get_it() -> None:
    async with serving(always(response())) as server, transport_to(server.port, limit=2) as transport:
        await ask(transport)  # one is free now, and counts
        answers = await asyncio.gather(*(ask(transport) for _ in range(20)))
        assert {answer.verdict.status for answer in answers} == {200}
        assert server.connections == 2
