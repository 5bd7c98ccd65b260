"""The client of the stored-completion endpoint: one call, one request, one verdict."""

import logging
import ssl
import time
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
import msgspec

from worker.api.answer import Answer
from worker.api.connector import Connector
from worker.api.endpoint import Auth, Endpoint, header_value
from worker.api.failure import FAILURES, failure
from worker.api.judging import judge
from worker.api.proxy import environment_proxy, proxy_secrets
from worker.api.session import SessionTransport
from worker.api.transport import Headers, Request, Transport
from worker.api.verdict import OK, Kind, Verdict
from worker.frames import forget_frames

_LONGEST_TIMEOUT_SECONDS = 86_400.0

# Releases of aiohttp with which the direct transport was tested. With others, the client uses the session transport.
_TESTED = frozenset({("3", "12"), ("3", "13"), ("3", "14")})

_logger = logging.getLogger(__name__)

_NO_METADATA: Mapping[str, str] = {}

Order = Literal["asc", "desc"]

_encode = msgspec.json.Encoder().encode


class Client:
    """Makes the calls. A failure of the service or the network raises nothing: it is in the answer's verdict.

    Each call raises ValueError for an invalid completion id, before anything is sent.

    Args:
        base_url: ``https://api.openai.com/v1``, or Azure's ``https://R.openai.azure.com/openai/v1``. A query is kept.
        auth: ``auto`` sends the key as ``api-key`` to Azure's hosts, and as a bearer token to all others.
        max_connections: open at the same time. Further calls wait for one, within their time-out.
        trust_env: use the proxy that the environment names, if any. Plain http stays on loopback, and uses none.
        tls: the trusted certificates; None for the system's.
        session: makes the calls. The client does not close it, and uses its proxy, pool and certificates.

    Raises:
        ValueError: the base URL, the proxy or a header value cannot be used.
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
        self._proxy = environment_proxy(self._endpoint) if trust_env else None
        self._tls = tls
        self._session = session
        self._transport: Transport | None = None
        self._fixed_headers = {"Accept": "application/json", "User-Agent": user_agent}
        if organization:
            self._fixed_headers["OpenAI-Organization"] = header_value("the organization", organization)
        if project:
            self._fixed_headers["OpenAI-Project"] = header_value("the project", project)
        login = () if self._proxy is None else proxy_secrets(self._proxy)
        self._other_secrets = (organization or "", project or "", *self._endpoint.secrets, *login)
        self.use_key(api_key)

    def use_key(self, api_key: str) -> None:
        """Send this key from the next request on.

        Raises:
            ValueError: no header can carry it. The former key stays in use.
        """
        headers = self._fixed_headers | self._endpoint.authorization(api_key, self._auth)
        # A merge that builds on what a cache has kept would wipe what was written since.
        self._headers = Headers(headers | {"Cache-Control": "no-cache"})
        self._json_headers = Headers(headers | {"Content-Type": "application/json"})
        self._secrets = (api_key, *self._other_secrets)

    async def __aenter__(self) -> Self:
        if self._transport is None:
            self._transport = self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, but not a session that was handed in."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    def __repr__(self) -> str:
        return f"<Client {self._endpoint.origin}{self._endpoint.path}>"

    def update(
        self, completion_id: str, metadata: Mapping[str, str], *, timeout_seconds: float, fresh: bool = False
    ) -> Coroutine[Any, Any, Answer]:
        """Set a completion's metadata to exactly this map, if the service replaces and does not merge.

        The connection is closed after an answer that is about another completion, or does not show what was sent.

        Args:
            fresh: use a new connection.
        """
        target = self._endpoint.completion_target(completion_id)
        request = Request("POST", target, self._json_headers, _encode({"metadata": dict(metadata)}))
        return self._call(request, timeout_seconds, asked=completion_id, metadata=metadata, fresh=fresh)

    def get(self, completion_id: str, *, timeout_seconds: float, fresh: bool = False) -> Coroutine[Any, Any, Answer]:
        """Read a completion; `fresh` as in `update`."""
        request = self._get(self._endpoint.completion_target(completion_id))
        return self._call(request, timeout_seconds, asked=completion_id, fresh=fresh)

    async def delete(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        """Delete a completion. `Answer.deletion` has the result."""
        request = Request("DELETE", self._endpoint.completion_target(completion_id), self._headers)
        return await self._call(request, timeout_seconds, asked=completion_id)

    async def list(
        self,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int | None = None,
        order: Order = "asc",
        timeout_seconds: float,
        fresh: bool = False,
    ) -> Answer:
        """Read a page of completions. `Answer.page` holds it.

        Args:
            metadata: pairs that each completion must have.
            after: the `last_id` of the page before.
            limit: at most 100; the service's default is 20.
            order: by time. It is always sent, since the service's default is not the documented one.
            fresh: use a new connection.
        """
        filters = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        parameters = ({"model": model} if model is not None else {}) | filters | _paging(after, limit, order)
        request = self._get(self._endpoint.list_target(parameters))
        return await self._call(request, timeout_seconds, metadata=metadata or {}, fresh=fresh)

    async def messages(
        self,
        completion_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        order: Order = "asc",
        timeout_seconds: float,
        fresh: bool = False,
    ) -> Answer:
        """Read a page of the messages that a completion answered; `fresh` is as in `update`."""
        target = self._endpoint.messages_target(completion_id, _paging(after, limit, order))
        return await self._call(self._get(target), timeout_seconds, fresh=fresh)

    def _get(self, target: str) -> Request:
        return Request("GET", target, self._headers)

    def _open(self) -> Transport:
        origin = self._endpoint.origin
        if self._session is not None:
            return SessionTransport(origin, self._session, owned=False)
        connector = Connector(limit=self._max_connections, ssl=self._tls or True)
        if self._proxy is None and _is_tested(aiohttp.__version__):
            from worker.api.direct import DirectTransport  # noqa: PLC0415 -- what it needs, another aiohttp may not have

            return DirectTransport(origin, connector)
        if self._proxy is None:
            _logger.warning("aiohttp %s is new to metasync: requests take the longer way", aiohttp.__version__)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=self._proxy)
        return SessionTransport(origin, session, owned=True)

    async def _call(
        self,
        request: Request,
        timeout_seconds: float,
        *,
        asked: str | None = None,
        metadata: Mapping[str, str] = _NO_METADATA,
        fresh: bool = False,
    ) -> Answer:
        """Make a call.

        Args:
            asked: the id of the completion; None for a list.
            metadata: pairs in the request, which the answer of an update must show.
        """
        if self._transport is None:
            raise RuntimeError("the client is used outside of its context")
        if not timeout_seconds > 0:
            return Answer(Verdict(Kind.RETRY, error="no time was left for the request"))
        secrets = self._secrets
        started = time.perf_counter()

        def made_of(status: int, headers: Mapping[str, str], content: bytes | None) -> tuple[Answer, bool]:
            verdict, shown = judge(
                status, headers, content, asked=asked, secrets=secrets, sent=metadata.values(), now=time.time()
            )
            kept = content if content and verdict.kind is OK else b""
            duration_ms = (time.perf_counter() - started) * 1000
            answer = Answer(verdict, shown.metadata, kept, duration_ms, shown.whole, shown.unread)
            return answer, not verdict.foreign and _has(shown.metadata, metadata)

        seconds = min(timeout_seconds, _LONGEST_TIMEOUT_SECONDS)
        try:
            return await self._transport.exchange(request, seconds, made_of, fresh=fresh)
        except FAILURES as error:
            forget_frames(error)
            return Answer(failure(error, self._proxy), duration_ms=(time.perf_counter() - started) * 1000)


def _has(shown: Mapping[str, str] | None, sent: Mapping[str, str]) -> bool:
    """Whether an answer shows all pairs that were sent, or shows no metadata at all."""
    return shown is None or sent.items() <= shown.items()


def _is_tested(version: str) -> bool:
    """Whether the direct transport was tested with this release of aiohttp."""
    return tuple(version.split(".")[:2]) in _TESTED


def _paging(after: str | None, limit: int | None, order: Order) -> dict[str, str]:
    paging = {"after": after, "limit": None if limit is None else str(limit), "order": order}
    return {name: value for name, value in paging.items() if value is not None}
