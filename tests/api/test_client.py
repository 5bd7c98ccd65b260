"""The client without sockets: its requests, and how it judges answers and exceptions."""

import asyncio
import base64
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from yarl import URL

from tests.api.mocks import BASE_URL, answer_with, mockable_client
from worker.api import Answer, Client, Halt, Kind, failure
from worker.api.models import Deletion
from worker.api.session import timeout

COMPLETION = f"{BASE_URL}/chat/completions/chatcmpl-1"
STORED = b'{"id":"chatcmpl-1","metadata":{"k":"v"},"choices":[{"message":{"content":"SECRET"}}]}'


async def call(method: str, *, answer: dict[str, Any], url: str = COMPLETION, **arguments: Any) -> Answer:
    """Make one call of the client, with the given answer."""
    with aioresponses() as mocked:
        answer_with(mocked, {"update": "POST", "delete": "DELETE"}.get(method, "GET"), url, **answer)
        async with mockable_client() as client:
            found: Answer = await getattr(client, method)(**arguments, timeout_seconds=5.0)
            return found


async def update(**answer: Any) -> Answer:
    return await call("update", answer=answer, completion_id="chatcmpl-1", metadata={"k": "v"})


async def test_an_update_sends_the_metadata_and_shows_the_completion() -> None:
    answer = await update(body=STORED, headers={"x-request-id": "req_1"})
    assert answer.verdict.kind is Kind.OK
    assert answer.verdict.request_id == "req_1"
    assert answer.metadata == {"k": "v"}
    assert answer.completion is not None
    assert answer.completion.id == "chatcmpl-1"
    assert answer.duration_ms > 0


async def test_an_answers_repr_shows_no_content() -> None:
    answer = await update(body=STORED.replace(b'"v"', b'"SECRET"'))
    assert "kind=<Kind.OK: 'ok'>" in repr(answer)
    assert "SECRET" not in repr(answer)
    assert "SECRET" not in repr(answer.completion)


async def test_absent_metadata_differs_from_empty_metadata() -> None:
    assert (await update(body=b'{"id":"chatcmpl-1"}')).metadata is None
    assert (await update(body=b'{"id":"chatcmpl-1","metadata":{}}')).metadata == {}


async def test_the_login_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://jane:hunt%2Fer2@proxy.example:3128")
    told = b"user jane, hunt/er2, hunt%2fer2 or Proxy-Authorization: Basic " + base64.b64encode(b"jane:hunt/er2")
    with aioresponses() as mocked:
        answer_with(mocked, "GET", COMPLETION, status=502, body=told)
        async with mockable_client(trust_env=True) as client:
            verdict = (await client.get("chatcmpl-1", timeout_seconds=5.0)).verdict
    assert verdict.error == "HTTP 502 Bad Gateway: user ***, ***, *** or Proxy-Authorization: Basic ***"


async def test_the_body_of_a_failure_is_not_kept() -> None:
    answer = await update(status=500, body=b'{"error":{"message":"broke"}}')
    assert answer.verdict.error == "HTTP 500 Internal Server Error: broke"
    assert answer.body == b""
    assert answer.completion is None


async def test_an_error_that_quotes_key_and_value_is_kept_without_them() -> None:
    with aioresponses() as mocked:
        answer_with(mocked, "POST", COMPLETION, status=400, body=b"no 'private note' with org-key-0001")
        async with mockable_client(api_key="org-key-0001") as client:
            answer = await client.update("chatcmpl-1", {"k": "private note"}, timeout_seconds=5.0)
    assert answer.verdict.error == "HTTP 400 Bad Request: no '***' with ***"


async def test_get_reads_a_completion() -> None:
    answer = await call("get", answer={"body": STORED}, completion_id="chatcmpl-1")
    assert answer.metadata == {"k": "v"}


async def test_delete_returns_the_deletion() -> None:
    body = b'{"object":"chat.completion.deleted","id":"chatcmpl-1","deleted":true}'
    answer = await call("delete", answer={"body": body}, completion_id="chatcmpl-1")
    assert answer.deletion == Deletion(object="chat.completion.deleted", id="chatcmpl-1", deleted=True)


async def test_list_always_sends_the_order() -> None:
    url = f"{BASE_URL}/chat/completions?order=asc"
    answer = await call("list", answer={"body": b'{"object":"list","data":[],"has_more":false}'}, url=url)
    assert answer.page is not None
    assert answer.page.has_more is False


async def test_list_passes_its_filters_and_its_cursor() -> None:
    url = URL(
        f"{BASE_URL}/chat/completions?model=gpt-4o&metadata%5Btopic%5D=a%26b&after=chatcmpl-0&limit=100&order=desc",
        encoded=True,
    )
    with aioresponses() as mocked:
        answer_with(mocked, "GET", str(url), body=b'{"data":[{"id":"chatcmpl-1"}]}')
        async with mockable_client() as client:
            answer = await client.list(
                model="gpt-4o",
                metadata={"topic": "a&b"},
                after="chatcmpl-0",
                limit=100,
                order="desc",
                timeout_seconds=5.0,
            )
    assert answer.page is not None
    assert [completion.id for completion in answer.page.data or []] == ["chatcmpl-1"]


async def test_messages_are_read_page_by_page() -> None:
    url = f"{COMPLETION}/messages?after=m-1&limit=2&order=asc"
    body = b'{"data":[{"id":"m-2","role":"user","content":"hi"}],"last_id":"m-2"}'
    answer = await call("messages", answer={"body": body}, url=url, completion_id="chatcmpl-1", after="m-1", limit=2)
    assert answer.messages is not None
    assert answer.messages.last_id == "m-2"


@pytest.mark.parametrize("method", ["update", "get", "delete", "messages"])
async def test_an_odd_id_is_refused_before_anything_is_sent(method: str) -> None:
    arguments: dict[str, Any] = {"metadata": {}} if method == "update" else {}
    with aioresponses() as mocked, pytest.raises(ValueError, match="not the id"):
        async with mockable_client() as client:
            await getattr(client, method)("a/../b", **arguments, timeout_seconds=5.0)
    assert not mocked.requests


@pytest.mark.parametrize("timeout_seconds", [0.0, -1.0, float("nan")])
async def test_without_time_nothing_is_sent(timeout_seconds: float) -> None:
    with aioresponses() as mocked:
        async with mockable_client() as client:
            answer = await client.get("chatcmpl-1", timeout_seconds=timeout_seconds)
    assert answer.verdict.kind is Kind.RETRY
    assert answer.verdict.error == "no time was left for the request"
    assert not mocked.requests


def test_a_time_out_is_kept_to_the_millisecond() -> None:
    found = timeout(59.125)
    assert found.total == 59.125
    assert found.sock_connect == 10.0
    assert found.ceil_threshold > 59.125  # above it, aiohttp would round up to a whole second


async def test_outside_its_context_a_client_cannot_be_used() -> None:
    client = Client(base_url=BASE_URL, api_key="sk-test")
    with pytest.raises(RuntimeError, match="context"):
        await client.get("chatcmpl-1", timeout_seconds=5.0)
    await client.close()


async def test_a_session_that_was_handed_over_stays_open() -> None:
    async with aiohttp.ClientSession() as session:
        async with Client(base_url=BASE_URL, api_key="sk-test", session=session) as client:
            with aioresponses() as mocked:
                answer_with(mocked, "GET", COMPLETION, body=STORED)
                assert (await client.get("chatcmpl-1", timeout_seconds=5.0)).verdict.kind is Kind.OK
        assert not session.closed


PLACE = ConnectionKey("api.openai.com", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("exception", "error"),
    [
        (
            aiohttp.ClientConnectorDNSError(PLACE, OSError(-2, "Name or service not known")),
            "the name api.openai.com was not resolved: Name or service not known",
        ),
        (
            aiohttp.ClientConnectorError(PLACE, ConnectionRefusedError(111, "Connection refused")),
            "no connection to api.openai.com:443: Connection refused",
        ),
        (
            aiohttp.ClientConnectorCertificateError(PLACE, ssl.SSLCertVerificationError("untrusted")),
            "the certificate of api.openai.com:443 is not trusted: SSLCertVerificationError",
        ),
        (
            aiohttp.ClientConnectorSSLError(PLACE, ssl.SSLError(1, "wrong version number")),
            "no TLS connection to api.openai.com:443: wrong version number",
        ),
        (
            aiohttp.ClientProxyConnectionError(PLACE, OSError(111, "Connection refused")),
            "no connection to the proxy api.openai.com:443: Connection refused",
        ),
        (aiohttp.ConnectionTimeoutError("SECRET"), "no connection in time"),
        (aiohttp.SocketTimeoutError("SECRET"), "no answer in time"),
        (TimeoutError(), "no answer in time"),
        (aiohttp.ServerDisconnectedError("SECRET"), "the connection was dropped"),
        (aiohttp.ClientOSError(32, "SECRET"), "the connection was dropped"),
        (aiohttp.ClientConnectionResetError("SECRET"), "the connection was dropped"),
        (ConnectionResetError(104, "reset"), "the connection was dropped"),
        (aiohttp.ClientPayloadError("SECRET"), "the answer was cut off"),
        (
            OSError(24, "Too many open files"),
            "too many open files: allow this process more of them (ulimit -n), or this machine",
        ),
        (OSError(28, "odd words"), "the request failed: No space left on device"),
        (aiohttp.ClientError("SECRET"), "the request failed: ClientError"),
    ],
)
async def test_a_failure_of_the_network_is_a_retry(exception: Exception, error: str) -> None:
    answer = await update(exception=exception)
    assert answer.verdict.kind is Kind.RETRY
    assert answer.verdict.transport
    assert answer.verdict.status is None
    assert answer.verdict.error == error
    assert answer.duration_ms > 0


@pytest.mark.parametrize("exception", [aiohttp.InvalidURL("x"), aiohttp.NonHttpUrlClientError("x")])
async def test_a_url_that_cannot_be_used_halts(exception: Exception) -> None:
    verdict = (await update(exception=exception)).verdict
    assert verdict.kind is Kind.HALTED
    assert verdict.halt is Halt.WRONG_URL
    assert not verdict.transport


@pytest.mark.parametrize("exception", [RuntimeError("a fault of ours"), TypeError("likewise")])
async def test_a_programming_error_propagates(exception: Exception) -> None:
    with pytest.raises(type(exception)):
        await update(exception=exception)


async def test_cancellation_propagates() -> None:
    with pytest.raises(asyncio.CancelledError):
        await update(exception=asyncio.CancelledError())


def test_the_text_of_a_failure_is_short_and_on_one_line() -> None:
    error = failure(aiohttp.ClientConnectorError(PLACE, OSError(1, "x\0y\n" * 400))).error
    assert error is not None
    assert error.isprintable()
    assert len(error) <= 500


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "openai.com"}, None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "other.com, api.openai.com:443"}, None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "api.openai.com:8443"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "NO_PROXY": "*"}, None),
        ({"http_proxy": "http://proxy:3128"}, None),
        ({}, None),
    ],
)
def test_the_environments_proxy_is_used_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str | None
) -> None:
    set_environment(monkeypatch, environment)
    assert Client(base_url=BASE_URL, api_key="sk-test")._proxy is None
    found = Client(base_url=BASE_URL, api_key="sk-test", trust_env=True)._proxy
    assert found == (None if proxy is None else URL(proxy))


def test_an_address_of_ipv6_may_be_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"https_proxy": "http://proxy:3128", "no_proxy": "fd00::1"})
    assert Client(base_url="https://[fd00::1]/v1", api_key="sk-test", trust_env=True)._proxy is None


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"https_proxy": "socks5://proxy:1080"})
    with pytest.raises(ValueError, match="socks5"):
        Client(base_url=BASE_URL, api_key="sk-test", trust_env=True)


@pytest.mark.parametrize(
    ("proxy", "complaint"),
    [
        ("http://jane:hunter2%E2%82%AC@proxy:3128", "no header can carry the proxy's login"),
        ("http://jane\u20ac:hunter2@proxy:3128", "no header can carry the proxy's login"),
        ("http://ja%3Ane:hunter2@proxy:3128", "no header can carry the proxy's login"),
        ("http://jane:hunter2@proxy:port", "not a URL"),
        ("http://jane:hunter2@:3128", "not a URL"),
        ("http://", "has no host"),
    ],
)
def test_a_proxy_that_no_request_could_go_through_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, proxy: str, complaint: str
) -> None:
    set_environment(monkeypatch, {"https_proxy": proxy})
    with pytest.raises(ValueError, match=complaint) as refused:
        Client(base_url=BASE_URL, api_key="sk-test", trust_env=True)
    assert "hunter2" not in str(refused.value)


def test_a_proxys_login_may_hold_latin_1_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"https_proxy": "http://jane:z%C3%BCrich%3A@proxy:3128"})
    found = Client(base_url=BASE_URL, api_key="sk-test", trust_env=True)._proxy
    assert found is not None
    assert found.password == "z\u00fcrich:"


async def test_no_secret_of_the_configuration_stands_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"https_proxy": "http://janedoe:hunter2@proxy:3128"})
    body = b"org-7 and proj_8 know the code c0de+/9 (c0de%2B%2F9), janedoe, hunter2 and api-version 2024-10-21"
    url = f"{COMPLETION}?code=c0de%2B/9&api-version=2024-10-21"
    async with aiohttp.ClientSession() as session:
        client = Client(
            base_url=f"{BASE_URL}?code=c0de%2B/9&api-version=2024-10-21",
            api_key="sk-test",
            organization="org-7",
            project="proj_8",
            trust_env=True,
            session=session,
        )
        with aioresponses() as mocked:
            answer_with(mocked, "GET", url, status=500, body=body)
            async with client:
                error = (await client.get("chatcmpl-1", timeout_seconds=5.0)).verdict.error
    assert error == (
        "HTTP 500 Internal Server Error: *** and *** know the code *** (***), ***, *** and api-version 2024-10-21"
    )


def test_plain_http_on_loopback_never_takes_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"http_proxy": "http://proxy:3128", "https_proxy": "http://proxy:3128"})
    assert Client(base_url="http://127.0.0.1:8000/v1", api_key="sk-test", trust_env=True)._proxy is None


def set_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
