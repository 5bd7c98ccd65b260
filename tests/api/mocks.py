"""Answers without a socket, through aioresponses."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

from aiohttp import ClientResponse, ClientSession
from aioresponses import aioresponses

from worker.api import Client

BASE_URL = "https://api.openai.com/v1"


class MockedResponse(ClientResponse):
    """A response as aioresponses 0.7.9 builds it: without the argument that aiohttp asks for since 3.14."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": Mock(output_size=0)} | kwargs)


@asynccontextmanager
async def mockable_client(*, api_key: str = "sk-test", trust_env: bool = False) -> AsyncIterator[Client]:
    """A client of `BASE_URL` with a session, which aioresponses replaces."""
    async with (
        ClientSession() as session,
        Client(base_url=BASE_URL, api_key=api_key, trust_env=trust_env, session=session) as client,
    ):
        yield client


def answer_with(
    mocked: aioresponses,
    method: str,
    url: str,
    *,
    status: int = 200,
    body: str | bytes = b"",
    headers: Mapping[str, str] | None = None,
    exception: Exception | None = None,
) -> None:
    """Answer the next request to this URL so."""
    mocked.add(
        url,
        method,
        status=status,
        body=body,
        headers=dict(headers or {}),
        exception=exception,
        response_class=MockedResponse,
    )
