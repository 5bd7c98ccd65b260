"""The client of the stored-completion endpoint: one call, one request, one verdict."""

import ssl
import time
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Literal, Self
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from worker.api.answer import Answer
from worker.api.direct import DirectTransport
from worker.api.endpoint import Auth, Endpoint, header_value
from worker.api.failure import FAILURES, failure
from worker.api.session import SessionTransport
from worker.api.transport import Headers, Request, Transport
from worker.api.verdict import Kind, Verdict, judge

_LONGEST_TIMEOUT_SECONDS = 86_400.0

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
        tls: whose certificates are trusted; the system's, if none is given.
        session: to make the calls through; it is not closed, and proxy, pool and trust are its own.

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
        tls: ssl.SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._endpoint = Endpoint.parse(base_url)
        self._auth = auth
        self._max_connections = max_connections
        self._proxy = _environment_proxy(self._endpoint) if trust_env else None
        self._tls = tls
        self._session = session
        self._transport: Transport | None = None
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
        headers = self._fixed_headers | self._endpoint.authorization(api_key, self._auth)
        self._headers = Headers(headers)
        self._json_headers = Headers(headers | {"Content-Type": "application/json"})
        self._api_key = api_key

    async def __aenter__(self) -> Self:
        if self._transport is None:
            self._transport = self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless they are those of a session that was handed in."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    def __repr__(self) -> str:
        return f"<Client {self._endpoint.origin}{self._endpoint.path}>"

    async def update(self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float) -> Answer:
        """Set a completion's metadata to exactly this map, as far as the service replaces and does not merge."""
        target = self._endpoint.completion_target(completion_id)
        request = Request("POST", target, self._json_headers, _encode({"metadata": dict(metadata)}))
        return await self._call(request, timeout_seconds, metadata.values())

    async def get(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """Read a completion."""
        return await self._call(self._get(self._endpoint.completion_target(completion_id)), timeout_seconds)

    async def delete(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """Delete a completion; `Answer.deletion` tells."""
        request = Request("DELETE", self._endpoint.completion_target(completion_id), self._headers)
        return await self._call(request, timeout_seconds)

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
        return await self._call(self._get(self._endpoint.list_target(parameters)), timeout_seconds, sent)

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
        target = self._endpoint.messages_target(completion_id, _paging(after, limit, order))
        return await self._call(self._get(target), timeout_seconds)

    def _get(self, target: str) -> Request:
        return Request("GET", target, self._headers)

    def _open(self) -> Transport:
        origin = self._endpoint.origin
        if self._session is not None:
            return SessionTransport(origin, self._session, owned=False)
        connector = aiohttp.TCPConnector(limit=self._max_connections, ssl=self._tls or True)
        if self._proxy is None:
            return DirectTransport(origin, connector)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=self._proxy)
        return SessionTransport(origin, session, owned=True)

    async def _call(self, request: Request, timeout_seconds: float, sent: Collection[str] = ()) -> Answer:
        if self._transport is None:
            raise RuntimeError("the client is used outside of its context")
        if not timeout_seconds > 0:
            return Answer(Verdict(Kind.RETRY, error="no time was left for the request"))
        api_key = self._api_key
        started = time.perf_counter()
        try:
            reply = await self._transport.exchange(request, min(timeout_seconds, _LONGEST_TIMEOUT_SECONDS))
        except FAILURES as error:
            return Answer(failure(error), duration_ms=_elapsed_ms(started))
        status, headers, content = reply
        verdict, metadata = judge(status, headers, content, api_key=api_key, sent=sent, now=time.time())
        kept = content if content and verdict.kind is Kind.OK else b""
        return Answer(verdict, metadata, kept, _elapsed_ms(started))


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
