"""The client of the stored-completion endpoint: one call, one request, one verdict."""

import time
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Final, Literal, Self
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from worker.api.answer import Answer
from worker.api.endpoint import Auth, Endpoint, header_value
from worker.api.failure import FAILURES, failure
from worker.api.verdict import Kind, Verdict, judge

# The largest stored completions, with log probabilities and Base64 audio, stay well below.
LARGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024
CONNECT_TIMEOUT_SECONDS: Final = 10.0
_LONGEST_TIMEOUT_SECONDS: Final = 86_400.0

Order = Literal["asc", "desc"]

_encode = msgspec.json.Encoder().encode


class Client:
    """Makes the calls. None of them raises for anything that the service or the network does: the verdict says it.

    Each call raises ValueError, before anything is sent, for an id that is none.

    Args:
        base_url: ``https://api.openai.com/v1``, or Azure's ``https://R.openai.azure.com/openai/v1``; a query is kept.
        auth: ``auto`` sends the key as ``api-key`` to Azure's hosts and as a bearer token to all others.
        max_connections: open at the same time; further calls wait for one, within their time-out.
        trust_env: use the proxy that the environment names, if any; never for plain http, which stays on loopback.
        session: to use instead of an own one; it is not closed, and proxies and pool are its own.

    Raises:
        ValueError: the base URL, the proxy, or something that goes into a header, cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        organization: str | None = None,
        project: str | None = None,
        auth: Auth = "auto",
        max_connections: int = 64,
        user_agent: str = "metasync",
        trust_env: bool = False,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._endpoint = Endpoint.parse(base_url)
        self._auth = auth
        self._max_connections = max_connections
        self._proxy = _environment_proxy(self._endpoint) if trust_env else None
        self._session = session
        self._owns_session = session is None
        self._fixed_headers = {"Accept": "application/json", "User-Agent": user_agent}
        if organization:
            self._fixed_headers["OpenAI-Organization"] = header_value("the organization", organization)
        if project:
            self._fixed_headers["OpenAI-Project"] = header_value("the project", project)
        self.use_key(api_key)

    def use_key(self, api_key: str) -> None:
        """Send this key from the next request on.

        Raises:
            ValueError: no header can carry it; the former key stays in use.
        """
        self._headers = self._fixed_headers | self._endpoint.authorization(api_key, self._auth)
        self._json_headers = self._headers | {"Content-Type": "application/json"}
        self._api_key = api_key

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, if the session is the client's own."""
        if self._session is not None and self._owns_session:
            await self._session.close()

    def __repr__(self) -> str:
        return f"<Client {self._endpoint.prefix}>"

    async def update(self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float) -> Answer:
        """Set a completion's metadata to exactly this map, as far as the service replaces and does not merge."""
        url = self._endpoint.completion_url(completion_id)
        body = _encode({"metadata": dict(metadata)})
        return await self._call("POST", url, timeout_seconds, body, metadata.values())

    async def get(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """Read a completion."""
        return await self._call("GET", self._endpoint.completion_url(completion_id), timeout_seconds)

    async def delete(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """Delete a completion; `Answer.deletion` tells."""
        return await self._call("DELETE", self._endpoint.completion_url(completion_id), timeout_seconds)

    async def list(
        self,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int | None = None,
        order: Order = "asc",
        timeout_seconds: float,
    ) -> Answer:
        """Read a page of completions; `Answer.page` holds it.

        Args:
            metadata: pairs that they all have.
            after: the `last_id` of the page before.
            limit: at most 100; the service's own choice is 20.
            order: by time; always sent, since the service's default is not the documented one.
        """
        filters = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        parameters = ({"model": model} if model is not None else {}) | filters | _paging(after, limit, order)
        sent = (metadata or {}).values()
        return await self._call("GET", self._endpoint.list_url(parameters), timeout_seconds, None, sent)

    async def messages(
        self,
        completion_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        order: Order = "asc",
        timeout_seconds: float,
    ) -> Answer:
        """Read a page of the messages that a completion answered; `Answer.messages` holds it."""
        url = self._endpoint.messages_url(completion_id, _paging(after, limit, order))
        return await self._call("GET", url, timeout_seconds)

    async def _call(
        self, method: str, url: URL, timeout_seconds: float, body: bytes | None = None, sent: Collection[str] = ()
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("the client is used outside of its context")
        if not timeout_seconds > 0:  # aiohttp takes 0 for no time-out at all
            return Answer(Verdict(Kind.RETRY, error="no time was left for the request"))
        api_key = self._api_key
        started = time.perf_counter()
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=self._headers if body is None else self._json_headers,
                timeout=_timeout(timeout_seconds),
                allow_redirects=False,
            ) as response:
                status, headers = response.status, response.headers
                content = await _read(response)
        except FAILURES as error:
            return Answer(failure(error), duration_ms=_elapsed_ms(started))
        verdict, metadata = judge(status, headers, content, api_key=api_key, sent=sent, now=time.time())
        kept = content if content and verdict.kind is Kind.OK else b""
        return Answer(verdict, metadata, kept, _elapsed_ms(started))


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body; None when it is too large: then leaving the response closes the connection on the rest."""
    stream = response.content
    chunks, size = [], 0
    while chunk := await stream.readany():
        size += len(chunk)
        if size > LARGEST_ANSWER_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


@lru_cache(maxsize=64)
def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    """The time-out in its own form; above `ceil_threshold` it would be rounded up, past a lease's end."""
    total = min(seconds, _LONGEST_TIMEOUT_SECONDS)
    connect = min(total, CONNECT_TIMEOUT_SECONDS)
    return aiohttp.ClientTimeout(total=total, sock_connect=connect, ceil_threshold=_LONGEST_TIMEOUT_SECONDS)


def _elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _paging(after: str | None, limit: int | None, order: Order) -> dict[str, str]:
    paging = {"after": after, "limit": None if limit is None else str(limit), "order": order}
    return {name: value for name, value in paging.items() if value is not None}


def _environment_proxy(endpoint: Endpoint) -> URL | None:
    """The environment's proxy. aiohttp's own `trust_env` would read netrc too, whose login clashes with our key."""
    if endpoint.is_plain or proxy_bypass(endpoint.host):
        return None
    proxy = getproxies().get("https")
    if not proxy:
        return None
    url = URL(proxy if "://" in proxy else f"http://{proxy}")
    if url.scheme not in {"http", "https"}:
        raise ValueError(f"the environment names a {url.scheme} proxy; only http and https ones can be used")
    return url
