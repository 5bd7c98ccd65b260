"""The client over real sockets: the exact bytes it sends, and every way in which a connection can end."""

import asyncio
import base64
import gzip
import json
import socket
import ssl

import pytest
import trustme

from tests.api.conformance.calls import LONG, client_of, update_at
from tests.api.servers import Connection, Handler, always, once, response, serving
from worker.api import Answer, Client, Halt, Kind


async def update_with(handler: Handler) -> Answer:
    async with serving(handler) as server:
        return await update_at(server.url)


def split(request: bytes) -> tuple[str, set[str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    return line, set(headers), body


async def test_an_update_sends_exactly_this() -> None:
    async with (
        serving(always(response(b'{"id":"chatcmpl-A.b_c-1"}'))) as server,
        client_of(f"{server.url}/?api-version=1", organization="org-1", project="proj_1") as client,
    ):
        answer = await client.update("chatcmpl-A.b_c-1", {"clé": 'a "b"'}, timeout_seconds=LONG)
    assert answer.verdict.kind is Kind.OK
    line, headers, body = split(server.requests[0])
    assert line == "POST /v1/chat/completions/chatcmpl-A.b_c-1?api-version=1 HTTP/1.1"
    assert body == '{"metadata":{"clé":"a \\"b\\""}}'.encode()
    encodings = {header for header in headers if header.startswith("Accept-Encoding: ")}
    assert headers - encodings == {
        f"Host: 127.0.0.1:{server.port}",
        "Authorization: Bearer sk-test",
        "OpenAI-Organization: org-1",
        "OpenAI-Project: proj_1",
        "Accept: application/json",
        "User-Agent: metasync",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    }


async def test_reading_and_deleting_send_no_body() -> None:
    async with serving(always(response())) as server, client_of(server.url, auth="api-key") as client:
        await client.get("chatcmpl-1", timeout_seconds=LONG)
        await client.delete("chatcmpl-1", timeout_seconds=LONG)
        await client.list(metadata={"a b": "c&d"}, timeout_seconds=LONG)
        await client.messages("chatcmpl-1", timeout_seconds=LONG)
    requests = [split(request) for request in server.requests]
    assert [line for line, _, _ in requests] == [
        "GET /v1/chat/completions/chatcmpl-1 HTTP/1.1",
        "DELETE /v1/chat/completions/chatcmpl-1 HTTP/1.1",
        "GET /v1/chat/completions?metadata%5Ba%20b%5D=c%26d&order=asc HTTP/1.1",
        "GET /v1/chat/completions/chatcmpl-1/messages?order=asc HTTP/1.1",
    ]
    for _, headers, body in requests:
        assert {"api-key: sk-test", "Cache-Control: no-cache"} <= headers
        assert not any(header.startswith(("Authorization", "Content-Type")) for header in headers)
        assert body == b""


async def test_a_rotated_key_takes_effect_with_the_next_request() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.receive()
            arrived.set()
            await go_on.wait()
            await connection.send(response(b"no sk0old0key here", status="400 Bad Request"))

    async with serving(handler) as server, Client(base_url=server.url, api_key="sk0old0key") as client:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(client.get("chatcmpl-1", timeout_seconds=LONG))
            await arrived.wait()
            client.use_key("sk0new0key")
            go_on.set()
        with pytest.raises(ValueError, match="API key"):
            client.use_key("not a key")
        await client.get("chatcmpl-1", timeout_seconds=LONG)
    assert b"Bearer sk0old0key" in server.requests[0]
    assert b"Bearer sk0new0key" in server.requests[1]
    assert first.result().verdict.error == "HTTP 400 Bad Request: no *** here"


async def test_a_connection_serves_many_calls_and_no_cookie_is_kept() -> None:
    async with (
        serving(always(response(headers=b"set-cookie: a=b\r\n"))) as server,
        client_of(server.url.replace("127.0.0.1", "localhost")) as client,
    ):
        for _ in range(5):
            await client.get("chatcmpl-1", timeout_seconds=LONG)
    assert len(server.requests) == 5
    assert server.connections == 1
    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_each_of_many_calls_at_once_gets_its_own_answer() -> None:
    async def handler(connection: Connection) -> None:
        while True:
            head, _, body = (await connection.receive()).partition(b"\r\n\r\n")
            completion_id = head.split(b" ", 2)[1].rpartition(b"/")[2]
            await connection.send(response(b'{"id":"%s",%s' % (completion_id, body[1:])))

    async with serving(handler) as server, client_of(server.url, max_connections=8) as client:
        answers = await asyncio.gather(
            *(client.update(f"chatcmpl-{n}", {"n": str(n)}, timeout_seconds=LONG) for n in range(40))
        )
    assert [answer.metadata for answer in answers] == [{"n": str(n)} for n in range(40)]
    assert server.connections <= 8


async def test_a_connection_that_is_reset_is_a_retry() -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.writer.transport.abort()

    verdict = (await update_with(handler)).verdict
    assert (verdict.kind, verdict.transport, verdict.error) == (Kind.RETRY, True, "the connection was dropped")


@pytest.mark.parametrize(
    "data",
    [
        response()[:-5],
        response(b"x" * 100_000)[:-1],
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"id"\r\n',
    ],
)
async def test_an_answer_that_is_cut_off_is_a_retry(data: bytes) -> None:
    verdict = (await update_with(once(data))).verdict
    assert (verdict.kind, verdict.transport, verdict.error) == (Kind.RETRY, True, "the answer was cut off")


@pytest.mark.parametrize("sent_first", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"])
async def test_an_answer_that_never_ends_is_a_retry(sent_first: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(sent_first)
        await asyncio.Event().wait()

    async with serving(handler) as server:
        verdict = (await update_at(server.url, timeout_seconds=0.1)).verdict
    assert (verdict.kind, verdict.transport, verdict.error) == (Kind.RETRY, True, "no answer in time")


async def test_a_call_that_finds_no_free_connection_in_time_is_a_retry() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.receive()
        arrived.set()
        await go_on.wait()
        await connection.send(response())

    async with (
        serving(handler) as server,
        client_of(server.url, max_connections=1) as client,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(client.get("chatcmpl-1", timeout_seconds=LONG))
        await arrived.wait()
        second = await client.get("chatcmpl-2", timeout_seconds=0.05)
        go_on.set()
        await first
    assert first.result().verdict.kind is Kind.OK
    assert second.verdict.kind is Kind.RETRY
    assert second.verdict.transport
    assert len(server.requests) == 1


async def test_a_call_that_is_cancelled_leaves_the_client_usable() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handler(connection: Connection) -> None:
        request = await connection.receive()
        if b"chatcmpl-slow" not in request:
            await connection.send(response())
            return
        arrived.set()
        await connection.reader.read()
        gone.set()

    async with serving(handler) as server, client_of(server.url, max_connections=1) as client:
        task = asyncio.create_task(client.get("chatcmpl-slow", timeout_seconds=LONG))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
        assert (await client.get("chatcmpl-1", timeout_seconds=LONG)).verdict.kind is Kind.OK


async def test_a_refused_connection_is_a_retry() -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        verdict = (await update_at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")).verdict
    assert (verdict.kind, verdict.transport) == (Kind.RETRY, True)
    assert verdict.error is not None
    assert "no connection to 127.0.0.1:" in verdict.error


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"])
async def test_no_redirect_is_followed(status: str) -> None:
    async with serving(always(response())) as elsewhere:
        location = f"location: {elsewhere.url}/chat/completions/chatcmpl-1\r\n".encode()
        verdict = (await update_with(always(response(b"", status=status, headers=location)))).verdict
    assert (verdict.kind, verdict.halt) == (Kind.HALTED, Halt.WRONG_URL)
    assert elsewhere.connections == 0


async def test_a_proxys_html_page_is_a_retry_with_its_text() -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><hr>cloud</body></html>"
    answer = await update_with(once(response(page, status="502 Bad Gateway", headers=b"content-type: text/html\r\n")))
    assert answer.verdict.kind is Kind.RETRY
    assert answer.verdict.error == "HTTP 502 Bad Gateway: 502 Bad Gateway cloud"


async def test_a_compressed_answer_is_read() -> None:
    body = gzip.compress(json.dumps({"id": "chatcmpl-1", "metadata": {"k": "v" * 500}}).encode())
    answer = await update_with(once(response(body, headers=b"content-encoding: gzip\r\n")))
    assert answer.metadata == {"k": "v" * 500}


async def test_an_answer_that_does_not_decompress_is_a_retry() -> None:
    answer = await update_with(once(response(b"not gzip at all", headers=b"content-encoding: gzip\r\n")))
    assert (answer.verdict.kind, answer.verdict.transport) == (Kind.RETRY, True)


ENDLESS = b"HTTP/1.1 %s\r\ntransfer-encoding: chunked\r\nx-request-id: req_1\r\n\r\n"
MEBIBYTE = b"100000\r\n%s\r\n" % (b" " * 1024 * 1024)


def endless(status: bytes) -> Handler:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(ENDLESS % status)
        while True:
            await connection.send(MEBIBYTE)

    return handler


async def test_a_success_without_end_is_applied_and_shows_nothing() -> None:
    answer = await update_with(endless(b"200 OK"))
    assert (answer.verdict.kind, answer.verdict.error) == (Kind.OK, None)
    assert (answer.unread, answer.metadata, answer.body) == (True, None, b"")
    assert answer.verdict.request_id == "req_1"


async def test_a_failure_without_end_is_judged_by_its_status() -> None:
    assert (await update_with(endless(b"401 Unauthorized"))).verdict.halt is Halt.UNAUTHORIZED


async def test_a_small_answer_that_unpacks_to_a_large_one_is_not_read() -> None:
    bomb = gzip.compress(b" " * 20 * 1024 * 1024, compresslevel=1)
    answer = await update_with(once(response(bomb, headers=b"content-encoding: gzip\r\n")))
    assert (answer.verdict.kind, answer.unread) == (Kind.OK, True)


async def test_an_answer_that_announces_too_large_a_body_is_not_read() -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n{")
        await connection.reader.read()

    answer = await update_with(handler)
    assert (answer.verdict.kind, answer.unread) == (Kind.OK, True)


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content"])
async def test_a_success_without_a_body_is_applied_and_shows_nothing(status: str) -> None:
    async with serving(always(response(b"", status=status))) as server, client_of(server.url) as client:
        for answer in (
            await client.update("chatcmpl-1", {"k": "v"}, timeout_seconds=LONG),
            await client.get("chatcmpl-1", timeout_seconds=LONG),
        ):
            assert (answer.verdict.kind, answer.unread, answer.metadata) == (Kind.OK, True, None)
    assert server.connections == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nretry-after: \xff\xfe\r\nx-request-id: \xff\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the connection ends",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
        bytes(range(256)),
    ],
)
async def test_any_bytes_of_a_server_give_a_verdict(data: bytes) -> None:
    verdict = (await update_with(once(data))).verdict
    assert verdict.kind is Kind.RETRY
    assert verdict.error is not None


def tls_server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_an_untrusted_certificate_is_refused_before_the_key_is_sent() -> None:
    tls = tls_server(trustme.CA().issue_cert("127.0.0.1"))
    async with serving(always(response()), tls=tls) as server:
        verdict = (await update_at(f"https://127.0.0.1:{server.port}/v1")).verdict
    assert (verdict.kind, verdict.transport) == (Kind.RETRY, True)
    assert verdict.error is not None
    assert "is not trusted: " in verdict.error
    assert not server.requests


async def test_a_trusted_certificate_is_taken_for_its_own_host_alone() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        serving(always(response()), tls=tls_server(authority.issue_cert("127.0.0.1"))) as right,
        serving(always(response()), tls=tls_server(authority.issue_cert("elsewhere.example"))) as wrong,
    ):
        verdicts = []
        for server in (right, wrong):
            async with client_of(f"https://127.0.0.1:{server.port}/v1", tls=trusting) as client:
                verdicts.append((await client.get("chatcmpl-1", timeout_seconds=LONG)).verdict)
    assert verdicts[0].kind is Kind.OK
    assert verdicts[1].error is not None
    assert "is not trusted" in verdicts[1].error
    assert not wrong.requests


async def test_a_proxy_is_asked_for_a_tunnel_and_never_shown_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    refusal = response(b"who are you?", status="407 Proxy Authentication Required")
    async with serving(always(refusal)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://jane:hunter2@127.0.0.1:{proxy.port}")
        async with client_of("https://api.example.org/v1", trust_env=True) as client:
            verdict = (await client.get("chatcmpl-1", timeout_seconds=LONG)).verdict
    assert (verdict.kind, verdict.halt) == (Kind.HALTED, Halt.PROXY)
    assert verdict.error == "the proxy refuses to connect: HTTP 407"
    line, headers, _ = split(proxy.requests[0])
    assert line == "CONNECT api.example.org:443 HTTP/1.1"
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'jane:hunter2').decode()}" in headers
    assert b"sk-test" not in proxy.requests[0]
