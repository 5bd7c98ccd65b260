"""The error of a call without an answer names the cause, and what to do about it."""

import os
import resource
import socket
import ssl
import sys
from asyncio import create_subprocess_exec, subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.api.conformance.calls import LONG, client_of, update_at
from tests.api.servers import always, once, response, serving
from worker.api import Halt, Kind, Verdict

STORED = b'{"id":"chatcmpl-1"}'


def refused_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


closed_port = pytest.fixture(refused_port)


async def verdict_at(url: str, *, trust_env: bool = False) -> Verdict:
    verdict = (await update_at(url, trust_env=trust_env)).verdict
    assert verdict.transport
    return verdict


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_connection(closed_port: int, host: str) -> None:
    verdict = await verdict_at(f"http://{host}:{closed_port}/v1")
    assert (verdict.kind, verdict.error) == (Kind.RETRY, f"no connection to {host}:{closed_port}: Connection refused")


async def test_a_host_name_that_does_not_resolve() -> None:
    verdict = await verdict_at("https://no-such-host.invalid/v1")
    assert verdict.kind is Kind.RETRY
    assert verdict.error is not None
    assert verdict.error.startswith("the name no-such-host.invalid was not resolved: ")


async def test_a_certificate_that_is_not_trusted() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    async with serving(always(response()), tls=context) as server:
        verdict = await verdict_at(f"https://localhost:{server.port}/v1")
    assert verdict.kind is Kind.RETRY
    assert verdict.error is not None
    assert verdict.error.startswith(f"the certificate of localhost:{server.port} is not trusted: unable to get ")


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(each.name) for each in Path("/dev/fd").iterdir()) + 8, hard))
    held = list[int]()
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_too_many_open_files(host: str) -> None:
    async with serving(always(response())) as server, client_of(server.url.replace("127.0.0.1", host)) as client:
        with no_more_files():
            verdict = (await client.get("chatcmpl-1", timeout_seconds=LONG)).verdict
    assert (verdict.kind, verdict.transport) == (Kind.RETRY, True)
    assert verdict.error == "too many open files: allow this process more of them (ulimit -n), or this machine"


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("status", ["403 Forbidden", "405 Method Not Allowed", "407 Proxy Authentication Required"])
async def test_a_proxy_that_refuses_the_tunnel_halts(through: pytest.MonkeyPatch, status: str) -> None:
    async with serving(always(response(b"no", status=status))) as proxy:
        through.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        verdict = await verdict_at("https://api.example.org/v1", trust_env=True)
    assert (verdict.kind, verdict.halt) == (Kind.HALTED, Halt.PROXY)
    assert verdict.error == f"the proxy refuses to connect: HTTP {status[:3]}"


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "504 Gateway Timeout"])
async def test_a_proxy_that_fails_is_a_retry(through: pytest.MonkeyPatch, status: str) -> None:
    async with serving(always(response(b"no", status=status))) as proxy:
        through.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        verdict = await verdict_at("https://api.example.org/v1", trust_env=True)
    assert (verdict.kind, verdict.error) == (Kind.RETRY, f"the proxy answered HTTP {status[:3]}")


async def test_a_proxy_that_refuses_the_connection(through: pytest.MonkeyPatch, closed_port: int) -> None:
    through.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    verdict = await verdict_at("https://api.example.org/v1", trust_env=True)
    assert verdict.kind is Kind.RETRY
    assert verdict.error == f"no connection to the proxy 127.0.0.1:{closed_port}: Connection refused"


async def test_a_proxy_name_that_does_not_resolve(through: pytest.MonkeyPatch) -> None:
    through.setenv("https_proxy", "http://no-such-proxy.invalid:3128")
    verdict = await verdict_at("https://api.example.org/v1", trust_env=True)
    assert verdict.kind is Kind.RETRY
    assert verdict.error is not None
    assert verdict.error.startswith("the name of the proxy no-such-proxy.invalid was not resolved: ")


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        (b"content-encoding: br\r\n", "the answer is packed as brotli, and cannot be unpacked"),
        (b"content-encoding: zstd\r\n", "the answer is packed as zstandard, and cannot be unpacked"),
        (b"content-encoding: gzip\r\n", "the answer is packed as gzip, and cannot be unpacked"),
        (b"x: " + b"y" * 9_000 + b"\r\n", "the answer has a header that is too long"),
        (b"".join(b"x-%d: y\r\n" % number for number in range(200)), "the answer has too many headers"),
        (b"no colon\r\n", "the answer is not valid HTTP"),
    ],
)
async def test_an_answer_that_aiohttp_cannot_read(headers: bytes, error: str) -> None:
    async with serving(once(response(STORED, headers=headers))) as server:
        verdict = await verdict_at(server.url)
    assert (verdict.kind, verdict.error) == (Kind.RETRY, error)


CALL = """
import asyncio, sys
from worker.api import Client

async def main():
    async with Client(base_url=sys.argv[1], api_key="sk-test") as client:
        print((await client.get("chatcmpl-1", timeout_seconds=30.0)).verdict.kind.value)

asyncio.run(main())
"""


@pytest.mark.parametrize(("is_named", "kind"), [(True, "ok"), (False, "retry")])
async def test_ssl_cert_file_names_the_trusted_certificates(tmp_path: Path, *, is_named: bool, kind: str) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    environment = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")} if is_named else {}
    async with serving(always(response(STORED)), tls=context) as server:
        process = await create_subprocess_exec(
            sys.executable,
            *("-c", CALL, f"https://127.0.0.1:{server.port}/v1"),
            env=os.environ | environment,
            stdout=subprocess.PIPE,
        )
        told, _ = await process.communicate()
    assert told.decode().strip() == kind


async def test_a_file_of_authorities_that_is_none_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with serving(always(response(STORED)), tls=context) as server:
        verdict = await verdict_at(f"https://127.0.0.1:{server.port}/v1")
    assert verdict.error is not None
    assert verdict.error.endswith(f"; SSL_CERT_FILE names {file}, which cannot be read: No such file or directory")
