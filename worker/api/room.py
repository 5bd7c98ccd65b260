"""Bounds the memory of all answers that are read at once: many large ones would take all of it."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.http import HttpProcessingError

from worker.api.failure import InvalidAnswerError

# The largest stored completions, with log probabilities and Base64 audio, stay well below this.
LARGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024
ROOM_BYTES: Final = 64 * 1024 * 1024
# aiohttp buffers so much of an answer anyway, before it stops reading.
_SMALL_ANSWER_BYTES: Final = 256 * 1024


class Room:
    """A number of bytes, granted in the order in which they are asked for.

    An answer takes all that it may need before it reads on, so that two answers never wait for each other.
    """

    __slots__ = ("_free", "_waiting")

    def __init__(self, total_bytes: int = ROOM_BYTES) -> None:
        self._free = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __repr__(self) -> str:
        return f"<Room [{self._free:,} bytes free, {len(self._waiting)} waiting]>"

    async def take(self, size: int) -> None:
        """Wait for so many bytes; `give` returns them."""
        if size <= self._free and not self._waiting:
            self._free -= size
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((size, granted))
        try:
            await granted
        except BaseException:
            if granted.cancelled():
                self._grant()
            else:  # granted at the moment of the cancellation
                self.give(size)
            raise

    def give(self, size: int) -> None:
        """Return bytes that were taken."""
        self._free += size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._free):
            size, granted = self._waiting.popleft()
            if not granted.cancelled():
                self._free -= size
                granted.set_result(None)


async def read_content(stream: aiohttp.StreamReader, headers: Mapping[str, str], room: Room) -> bytes | None:
    """Read the whole body; a large one waits for room.

    Returns:
        None if it is larger than `LARGEST_ANSWER_BYTES`. Then the connection cannot be used again.

    Raises:
        InvalidAnswerError: it is not HTTP.
    """
    most = _most_bytes(headers)
    if most is None:
        return None
    chunks, size, taken = list[bytes](), 0, 0
    try:
        while chunk := await stream.readany():
            size += len(chunk)
            if size > LARGEST_ANSWER_BYTES:
                return None
            chunks.append(chunk)
            if size > _SMALL_ANSWER_BYTES and not taken:
                await room.take(most)
                taken = most
        return b"".join(chunks)
    except HttpProcessingError as error:  # aiohttp hands it on as it is where the head came before
        raise InvalidAnswerError from error
    finally:
        if taken:
            room.give(taken)


def _most_bytes(headers: Mapping[str, str]) -> int | None:
    """How large the body may become; None if its announced length is too large."""
    length = headers.get("Content-Length", "")
    if headers.get("Content-Encoding") is not None or not length.isdecimal():
        return LARGEST_ANSWER_BYTES
    return int(length) if int(length) <= LARGEST_ANSWER_BYTES else None
