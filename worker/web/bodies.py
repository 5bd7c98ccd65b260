"""Read a request's body within a size limit, also when it is compressed or lies about its length."""

import zlib
from http import HTTPStatus

from aiohttp import hdrs, web

from worker.threads import in_thread

MAX_BYTES = 8 * 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 4096
_LONG_BYTES = 64 * 1024  # more is unpacked in a thread, so that it does not block the event loop


class UnusableBody(Exception):
    """The body cannot be used; the message says why.

    Args:
        status: of the answer.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read_body(request: web.Request) -> bytes:
    """Read a body of up to `MAX_BYTES` after decompression (gzip only).

    Raises:
        UnusableBody: it is too large, damaged, cut off, or has another encoding.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise UnusableBody(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as it is, or with Content-Encoding: gzip")
    if (request.content_length or 0) > MAX_BYTES:
        raise _too_large()
    packed = bytearray()
    try:
        async for piece in request.content.iter_any():
            packed += piece
            if len(packed) > MAX_BYTES:
                raise _too_large()
    except web.RequestPayloadError:
        raise UnusableBody(HTTPStatus.BAD_REQUEST, "the body was cut off") from None
    text = bytes(packed)
    if encoding != "identity":
        text = await in_thread(_unpacked, text) if len(text) > _LONG_BYTES else _unpacked(text)
    if text.startswith(_GZIP_MAGIC):
        raise UnusableBody(HTTPStatus.BAD_REQUEST, "the body is gzip: say Content-Encoding: gzip, and pack it once")
    return text


def _unpacked(packed: bytes) -> bytes:
    text = bytearray()
    rest = memoryview(packed)
    unpacker = zlib.decompressobj(_GZIP)
    while rest:
        if unpacker.eof:  # gzip data may have several members
            unpacker = zlib.decompressobj(_GZIP)
        # In pieces: each member's end copies what follows in its piece, and a body may have 400,000 empty members.
        piece, rest = rest[:_PIECE_BYTES], rest[_PIECE_BYTES:]
        try:
            text += unpacker.decompress(piece, MAX_BYTES + 1 - len(text))
        except zlib.error:
            raise UnusableBody(HTTPStatus.BAD_REQUEST, "the gzip data is damaged") from None
        if len(text) > MAX_BYTES:
            raise _too_large()
        rest = memoryview(packed)[len(packed) - len(rest) - len(unpacker.unused_data) :]
    if packed and not unpacker.eof:
        raise UnusableBody(HTTPStatus.BAD_REQUEST, "the gzip data ends too early: the body was cut off")
    return bytes(text)


def _too_large() -> UnusableBody:
    return UnusableBody(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request takes {MAX_BYTES // 1024**2} MiB at most, unpacked"
    )
