"""Compressed bodies cost no more than their size, whatever they are made of."""

import gzip
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from worker.web import bodies


class _Content:
    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    async def iter_any(self) -> Any:
        yield self._packed


def _request(packed: bytes) -> web.Request:
    content: Any = _Content(packed)
    return make_mocked_request("POST", "/changes", headers={"Content-Encoding": "gzip"}, payload=content)


@pytest.mark.parametrize("text", [b"", b"a", b"line\n" * 5_000])
async def test_a_body_of_several_members_is_read_whole(text: bytes) -> None:
    packed = gzip.compress(text, 0)
    for others in range(3):
        assert await bodies.read_body(_request(packed * (others + 1))) == text * (others + 1)


async def test_many_empty_members_are_not_copied_again_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them were, in the event loop: 8 MiB took a minute, in which the worker did nothing else."""
    given = 0

    class Counting:
        def __init__(self, bits: int) -> None:
            self._unpacker = zlib.decompressobj(bits)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._unpacker, name)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return self._unpacker.decompress(data, most)

    monkeypatch.setattr("worker.web.bodies.zlib", SimpleNamespace(decompressobj=Counting, error=zlib.error))
    members = 4_000
    assert await bodies.read_body(_request(gzip.compress(b"") * members)) == b""
    assert given <= members * 4_096
