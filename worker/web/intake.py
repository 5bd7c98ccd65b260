"""Accept changes over HTTP: parsed like the lines of a file, and acknowledged once they are durable."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import NamedTuple

import msgspec
import structlog
from aiohttp import hdrs, web

from worker.api.room import Room
from worker.changes import InvalidChange, MetadataChange, Mode
from worker.changes.change import MAX_CHANGE_ID_LENGTH
from worker.changes.files import ChangeFile, Format, Reading, Refusal, UnreadableFile
from worker.queue import Queue, QueueError, QueueStatus, QueueUnavailable, check_batch_name
from worker.terminal import shown
from worker.threads import NoThread, begun
from worker.web.bodies import MAX_BYTES, UnusableBody, read_body
from worker.web.connections import Connections
from worker.web.depth import Asked
from worker.web.door import JSON, answer
from worker.web.seal import Lasting
from worker.web.trouble import Seldom

PATH = "/changes"
MAX_CHANGES = 10_000
MAX_LINES = 10 * MAX_CHANGES
MAX_KEY_CHARACTERS = MAX_CHANGE_ID_LENGTH - len(f":{MAX_BYTES}")  # of an Idempotency-Key; a line number is appended
FORMATS: Mapping[str, Format] = {JSON: "json", "application/x-ndjson": "jsonl", "application/jsonl": "jsonl"}

# For all bodies being read or stored together.
_ROOM_BYTES = 4 * MAX_BYTES
# For those of them being parsed or stored: that takes up to ten times as much memory, with an emoji in each value.
_PARSED_BYTES = MAX_BYTES
# A longer body is parsed in a thread, so that it does not block the event loop.
_LONG_BYTES = 64 * 1024
_BODY_SECONDS = 30.0
_SAID_EVERY_SECONDS = 10.0
# Retry-After: too many requests at once, store unavailable, backlog too long.
_BUSY_SECONDS, _AWAY_SECONDS, _FULL_SECONDS = 1, 5, 30
_FLAG = ": say --"  # begins the advice to name a flag of a command, which a request does not have
_URGENT = {None: False, "false": False, "true": True}
_KEY = re.compile(rf'"?([\x21\x23-\x7e]{{1,{MAX_KEY_CHARACTERS}}})"?')

CONFLICT = "a different change with its change_id is pending already"


class Refused(msgspec.Struct, frozen=True):
    """A refused change.

    Args:
        line: its line, or its position in the array, from 1.
    """

    line: int
    reason: str


class Account(msgspec.Struct, frozen=True):
    """The result of a request; the changes that it added are durable.

    Args:
        duplicates: changes whose change_id is pending, or was applied recently.
        applied_before: the duplicates whose change_id was applied before, with any content: a correction needs a
            change_id of its own.
    """

    added: int
    duplicates: int
    applied_before: int
    refused: list[Refused]


class Problem(msgspec.Struct, frozen=True):
    """Why no change of a request was stored."""

    error: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The configuration of the intake.

    Args:
        tokens: a request needs one of them.
        mode: the mode of a change that names none.
        max_pending: no change is accepted while so many are pending; None for no limit.
    """

    tokens: Sequence[str]
    mode: Mode
    max_pending: int | None


class Intake:
    """Stores changes of HTTP requests in a queue.

    Args:
        depth: the queue's cached status.
    """

    def __init__(self, queue: Queue, terms: Terms, depth: Asked[QueueStatus], connections: Connections) -> None:
        self._queue = queue
        self._digests = [_digest(token) for token in terms.tokens]
        self._mode = terms.mode
        self._max_pending = terms.max_pending
        self._depth = depth
        self._connections = connections
        self._room = _ROOM_BYTES
        self._parsed = Room(_PARSED_BYTES)
        # One thread: each has memory of its own, which it keeps when a large body is done.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._seldom = Seldom(_SAID_EVERY_SECONDS)

    def __repr__(self) -> str:
        return f"<Intake [{len(self._digests)} tokens, {(_ROOM_BYTES - self._room):,} bytes in hand]>"

    def is_known(self, request: web.BaseRequest) -> bool:
        """Whether the request has one of the tokens, compared in constant time."""
        scheme, _, shown = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        digest = _digest(shown.strip())
        is_one = any([hmac.compare_digest(digest, each) for each in self._digests])  # noqa: C419 -- compares all
        return is_one and scheme.lower() == "bearer"

    def guard(self, request: web.Request) -> None:
        """Admit requests with a token.

        Raises:
            HTTPUnauthorized: the request has none.
        """
        if not self.is_known(request):
            raise web.HTTPUnauthorized(
                body=msgspec.json.encode(Problem("METASYNC_INTAKE_TOKEN is needed, as a bearer token")),
                content_type=JSON,
                headers={hdrs.WWW_AUTHENTICATE: 'Bearer realm="metasync intake"'},
            )

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Store the changes of a request."""
        self._connections.stay(request.protocol)
        try:
            return await self._take(request)
        except UnusableBody as error:
            return _problem(error.status, str(error))
        except UnreadableFile as error:
            return _problem(HTTPStatus.BAD_REQUEST, error.refusal.reason.partition(_FLAG)[0])
        except NoThread as error:
            if (more := self._seldom.unsaid("no_thread")) is not None:
                structlog.get_logger().warning("intake.unavailable", error=str(error), more=more)
            return _later("the machine is busy, and nothing was stored: try again", _BUSY_SECONDS)
        except QueueUnavailable as error:
            if (more := self._seldom.unsaid("unavailable")) is not None:
                structlog.get_logger().warning("intake.unavailable", error=str(error), more=more)
            return _later("the store is unavailable: it is not known what was stored, try again", _AWAY_SECONDS)
        except QueueError as error:
            if (more := self._seldom.unsaid("unusable")) is not None:
                structlog.get_logger().error("intake.unusable", error=str(error), more=more)
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the queue cannot be used: its log says why")

    async def _take(self, request: web.Request) -> web.StreamResponse:
        form = _form(request)
        key = _key(request)
        wish = _wish(request)
        if self._max_pending is not None:
            status = await self._depth.look()
            if status is not None and status.pending >= self._max_pending:
                return _later(f"{status.pending:,} changes are pending: try again when there are fewer", _FULL_SECONDS)
        is_bounded = request.content_length is not None and hdrs.CONTENT_ENCODING not in request.headers
        wanted = min(request.content_length or 0, MAX_BYTES) if is_bounded else MAX_BYTES
        with self._reserved(wanted) as has_room:
            if not has_room:
                return _later("there are too many requests at once: try again", _BUSY_SECONDS)
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    body = await read_body(request)
            except TimeoutError:
                raise UnusableBody(HTTPStatus.REQUEST_TIMEOUT, "the body did not come") from None
            await self._parsed.take(len(body))
            try:
                reading = Reading(self._mode, form)
                if len(body) > _LONG_BYTES:
                    read = await begun(self._parser, partial(_read, body, reading, key))
                else:
                    read = _read(body, reading, key)
                return await self._store(read, wish)
            finally:
                self._parsed.give(len(body))

    async def _store(self, read: "_Read", wish: "_Wish") -> web.StreamResponse:
        stored = await self._queue.put(read.changes, batch=wish.batch, urgent=wish.is_urgent)
        refused = [*read.refused, *[Refused(read.lines[position], CONFLICT) for position in stored.conflicts]]
        refused.sort(key=lambda each: each.line)
        status = HTTPStatus.OK
        if refused and not stored.added + stored.duplicates:
            status = HTTPStatus.UNPROCESSABLE_ENTITY if read.refused else HTTPStatus.CONFLICT
        account = Account(stored.added, stored.duplicates, stored.applied_before, refused)
        return Lasting(body=msgspec.json.encode(account), status=status, content_type=JSON)

    @contextmanager
    def _reserved(self, size: int) -> Iterator[bool]:
        """Reserve room for so many bytes, while the context lasts; yields False if there is none."""
        if size > self._room:
            yield False
            return
        self._room -= size
        try:
            yield True
        finally:
            self._room += size


class _Wish(NamedTuple):
    """The query's options, for all changes of a request."""

    batch: str | None
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """The changes of a body, each with its line, and the refused lines."""

    changes: list[MetadataChange]
    lines: list[int]
    refused: list[Refused]


def _read(body: bytes, reading: Reading, key: str | None) -> _Read:
    """Parse a body.

    Args:
        key: the Idempotency-Key; with the line number it is the change_id of a change that has none.

    Raises:
        UnreadableFile: it has another format.
        UnusableBody: it holds too many lines.
    """
    if reading.format == "jsonl" and body.count(b"\n") > MAX_LINES:  # of blank ones, eight million take a minute
        raise UnusableBody(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request takes {MAX_LINES:,} lines at most")
    read = _Read([], [], [])
    with ChangeFile.open("-", reading, stdin=BytesIO(body)) as file:
        for line, item in file:
            if len(read.changes) + len(read.refused) == MAX_CHANGES:
                raise UnusableBody(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request takes {MAX_CHANGES:,} changes at most"
                )
            if isinstance(item, MetadataChange):
                if key is not None and item.change_id is None:
                    item = msgspec.structs.replace(item, change_id=f"{key}:{line}")  # noqa: PLW2901 -- the same one
                read.changes.append(item)
                read.lines.append(line)
            elif isinstance(item, Refusal):
                read.refused.append(Refused(line, item.reason))
    return read


def _wish(request: web.Request) -> _Wish:
    """Parse the query, ``?batch=NAME&urgent=true``.

    Raises:
        UnusableBody: it is anything else: a misspelt option must not be ignored.
    """
    query = request.query
    for name in query:
        if name not in ("batch", "urgent"):
            where = ": it is a field of each change" if name == "as_of" else ""
            raise UnusableBody(HTTPStatus.BAD_REQUEST, f"the query takes batch and urgent, not {shown(name)}{where}")
        if len(query.getall(name)) > 1:
            raise UnusableBody(HTTPStatus.BAD_REQUEST, f"the query says {name} twice")
    batch, urgent = query.get("batch"), query.get("urgent")
    try:
        if batch is not None:
            check_batch_name(batch)
    except InvalidChange as error:
        raise UnusableBody(HTTPStatus.BAD_REQUEST, str(error)) from None
    if urgent not in _URGENT:
        raise UnusableBody(HTTPStatus.BAD_REQUEST, "urgent must be true or false")
    return _Wish(batch, _URGENT[urgent])


def _form(request: web.Request) -> Format:
    """Return the format that the Content-Type names.

    Raises:
        UnusableBody: the type is not supported.
    """
    if request.content_type not in FORMATS:
        known = f"say Content-Type: {JSON} for an object or an array, or application/x-ndjson for JSON lines"
        raise UnusableBody(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, known)
    return FORMATS[request.content_type]


def _key(request: web.Request) -> str | None:
    """Return the Idempotency-Key, without quotes around it; None if there is none.

    Raises:
        UnusableBody: the key is malformed, or there are two.
    """
    given = request.headers.getall("Idempotency-Key", None)
    if given is None:
        return None
    if (match := _KEY.fullmatch(", ".join(given).strip())) is None:
        raise UnusableBody(
            HTTPStatus.BAD_REQUEST, f"give one Idempotency-Key, of 1 to {MAX_KEY_CHARACTERS} visible ASCII characters"
        )
    return match[1]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _problem(status: int, text: str) -> web.Response:
    return answer(msgspec.json.encode(Problem(text)), JSON, status=status)


def _later(text: str, seconds: int) -> web.Response:
    response = _problem(HTTPStatus.SERVICE_UNAVAILABLE, text)
    response.headers[hdrs.RETRY_AFTER] = str(seconds)
    return response
