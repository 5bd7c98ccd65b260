"""A server that is not the bottleneck: answers every update with a canned completion, over a bare protocol."""

import argparse
import asyncio
import json
import sys
import time
from typing import cast

Record = list[tuple[str, float, float]]

_BODY = (
    json.dumps(
        {
            "object": "chat.completion",
            "created": 1_757_000_000,
            "model": "gpt-4o-mini",
            "request_id": "req_0123456789abcdef",
            "tool_choice": None,
            "seed": -4_612_345_678_901_234_567,
            "top_p": 1.0,
            "temperature": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "system_fingerprint": "fp_0123456789",
            "input_user": None,
            "service_tier": "default",
            "tools": None,
            "response_format": None,
            "usage": {"total_tokens": 310, "completion_tokens": 290, "prompt_tokens": 20},
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "word " * 200,
                        "tool_calls": None,
                        "function_call": None,
                    },
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ],
        }
    ).encode()[1:-1]
    + b","
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: "
_STORED = b'"metadata":{"grade":"A","reviewer":"ana"}}'


def answer(completion_id: bytes, body: bytes) -> bytes:
    """Answer an update with the metadata that it set, and a request without a body with the first metadata."""
    start, metadata = b'{"id":"%b",' % completion_id, body[1:] or _STORED
    return b"%b%d\r\n\r\n%b%b%b" % (_HEAD, len(start) + len(_BODY) + len(metadata), start, _BODY, metadata)


def page(query: bytes) -> bytes:
    """Answer a list call: a hundred completions after the one named, and there are always more."""
    after = query.rpartition(b"after=chatcmpl-")[2].partition(b"&")[0]
    first = int(after) + 1 if after.isdigit() else 0
    items = b",".join(b'{"id":"chatcmpl-%07d",%b%b' % (number, _BODY, _STORED) for number in range(first, first + 100))
    body = b'{"object":"list","data":[%b],"last_id":"chatcmpl-%07d","has_more":true}' % (items, first + 99)
    return b"%b%d\r\n\r\n%b" % (_HEAD, len(body), body)


class CannedAnswers(asyncio.Protocol):
    """Counts Content-Length bytes and answers; no router, no parser, no state besides the buffer.

    Args:
        latency_seconds: from a request to its answer.
        record: where to note each request: completion, arrival and answer, by the monotonic clock, which all processes
            of a machine share.
    """

    def __init__(self, latency_seconds: float = 0.0, record: Record | None = None) -> None:
        self._latency_seconds = latency_seconds
        self._record = record
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)  # of TCP; uvloop's are not a subclass

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            arrived_at = time.monotonic()
            path = self._buffer[: self._buffer.find(b"\r\n")].split(b" ", 2)[1]
            completion_id = path.rpartition(b"/")[2]
            head = self._buffer[:head_end].lower()
            at = head.find(b"content-length:")
            length = 0 if at < 0 else int(head[at + 15 :].split(b"\r\n", 1)[0])
            end = head_end + 4 + length
            if len(self._buffer) < end:
                return
            name, _, query = completion_id.partition(b"?")
            reply = page(query) if name == b"completions" else answer(name, self._buffer[head_end + 4 : end])
            self._buffer = self._buffer[end:]
            if self._latency_seconds:
                loop = asyncio.get_running_loop()
                loop.call_later(self._latency_seconds, self._answer, reply, completion_id, arrived_at)
            else:
                self._answer(reply, completion_id, arrived_at)

    def _answer(self, reply: bytes, completion_id: bytes, arrived_at: float) -> None:
        if self._transport is None:
            return
        if self._record is not None:  # before the answer can have been read
            self._record.append((completion_id.decode(), arrived_at, time.monotonic()))
        self._transport.write(reply)


async def _serve(latency_seconds: float, *, recording: bool) -> None:
    record: Record = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: CannedAnswers(latency_seconds, record if recording else None), "127.0.0.1", 0, backlog=4_096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    # A line asks for the record; the end of the input ends the server.
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(record), flush=True)
        record.clear()


def main() -> None:
    """Serve until standard input ends."""
    import uvloop  # noqa: PLC0415 -- what else is in here needs nothing installed

    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("latency_seconds", type=float, nargs="?", default=0.0)
    parser.add_argument("--recording", action="store_true")
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.latency_seconds, recording=arguments.recording))


if __name__ == "__main__":
    main()
