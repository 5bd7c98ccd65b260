"""Calls of a client against a server on loopback."""

from typing import Any

from worker.api import Answer, Client

LONG = 30.0  # seconds: nothing here comes near it


def client_of(url: str, **options: Any) -> Client:
    return Client(base_url=url, api_key="sk-test", **options)


async def update_at(url: str, *, timeout_seconds: float = LONG, **options: Any) -> Answer:
    async with client_of(url, **options) as client:
        return await client.update("chatcmpl-1", {"k": "v"}, timeout_seconds=timeout_seconds)
