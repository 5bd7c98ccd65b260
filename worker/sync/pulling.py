"""Write completions as changes that would leave each one as it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from worker.api import Answer, Kind, Verdict
from worker.api.pages import Listed, read_fields, read_page, read_replies
from worker.changes import InvalidChange, MetadataChange
from worker.flow import SUCCEEDED
from worker.sync.asking import Asking
from worker.sync.lines import CONVERSATION
from worker.sync.listing import PAGE, Lists, Order, Walk
from worker.sync.reading import Gets, get, read_each, shown
from worker.sync.spool import Entry, Spool
from worker.sync.target import Target

_NOT_SHOWN = "the service does not show its metadata whole: there is no line for it"


class Reads(Gets, Lists, Protocol):
    """What a pull needs of the service; `worker.api.Client` implements it."""

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
        """Read a page of messages."""


@dataclass(slots=True)
class Counts:
    """Completions, by result.

    Args:
        written: lines that this run wrote.
        not_found: named by the user, but not stored.
        unreadable: the service refuses to show the metadata, or does not show it completely.
        unfit: written, but with metadata that breaks a rule, so that the line cannot be applied unchanged.
        passed_over: listed by the service, but dropped by the filter.
    """

    written: int = 0
    not_found: int = 0
    unreadable: int = 0
    unfit: int = 0
    passed_over: int = 0

    @property
    def is_all(self) -> bool:
        """Whether each completion has a line that can be applied."""
        return not (self.not_found or self.unreadable or self.unfit)


class _Found(NamedTuple):
    """The result of a read, without the conversation: many may wait until a slow one is written.

    Args:
        metadata: None if it is not shown whole.
        line: to write; empty without metadata.
    """

    completion_id: str
    verdict: Verdict
    metadata: dict[str, str] | None
    line: bytes

    @property
    def size(self) -> int:
        return len(self.line)


class Pull:
    """Writes a line for each completion.

    Args:
        fields: further fields of a line; see `worker.sync.lines.FIELDS`.
        tell: called for each completion without a usable line, with a sentence that contains no value.
    """

    def __init__(
        self,
        asking: Asking,
        client: Reads,
        target: Target,
        fields: Sequence[str] = (),
        *,
        tell: Callable[[str, str], object],
    ) -> None:
        self.counts = Counts()
        self._asking = asking
        self._client = client
        self._target = target
        self._tell = tell
        self._with_messages = CONVERSATION in fields
        self._fields = [name for name in fields if name != CONVERSATION]

    def __repr__(self) -> str:
        return f"<Pull [{self.counts.written} written]>"

    async def walk(self, walk: Walk) -> None:
        """Write the completions of a walk through the list."""
        async for items in walk.pages():
            for item in items:
                await self._listed(item)
            self.counts.passed_over = walk.passed_over
            self.counts.unreadable += walk.nameless
            walk.nameless = 0
            await self._target.flush()  # once a page: pages are slow enough
        await self._target.finish()

    async def named(self, spool: Spool) -> None:
        """Write the completions in the spool, in its order."""

        async def look(entry: Entry) -> _Found:
            completion_id = entry.completion_id
            answer = await get(self._asking, self._client, completion_id)
            metadata, verdict = shown(answer), answer.verdict
            if metadata is None:
                return _Found(completion_id, verdict, None, b"")
            fields = self._shown_fields(answer.body)
            return _Found(completion_id, verdict, metadata, await self._line(completion_id, metadata, fields))

        def take(found: _Found) -> None:
            if found.metadata is not None:
                self._write(found.completion_id, found.metadata, found.line)
            elif found.verdict.kind is Kind.NOT_FOUND:
                self.counts.not_found += 1
                self._tell(found.completion_id, "not found: there is no line for it")
            else:
                self.counts.unreadable += 1
                self._tell(found.completion_id, found.verdict.error or _NOT_SHOWN)

        async def settle() -> None:
            if self._target.is_full:
                await self._target.flush()

        await read_each(self._asking, spool.entries(), look, take, settle, size_of=lambda found: found.size)
        await self._target.finish()

    async def _listed(self, item: Listed) -> None:
        if item.id is None or item.metadata is None or not item.whole:
            self.counts.unreadable += 1
            self._tell(item.id or "", _NOT_SHOWN)
            return
        line = await self._line(item.id, item.metadata, self._shown_fields(item.raw))
        self._write(item.id, item.metadata, line)

    def _write(self, completion_id: str, metadata: Mapping[str, str], line: bytes) -> None:
        self._target.put(line)
        self.counts.written += 1
        try:
            MetadataChange(completion_id, metadata, "replace")
        except InvalidChange as error:
            self.counts.unfit += 1
            self._tell(completion_id, f"its line cannot be applied as it stands: {error}")

    def _shown_fields(self, body: bytes) -> dict[str, Any]:
        """Return the further fields of a completion; of its conversation, what the model answered."""
        fields = read_fields(body, self._fields) if self._fields else {}
        if self._with_messages:
            fields[CONVERSATION] = read_replies(body)
        return fields

    async def _line(self, completion_id: str, metadata: Mapping[str, str], fields: dict[str, Any]) -> bytes:
        if self._with_messages:
            fields[CONVERSATION] = [*await self._messages(completion_id), *fields[CONVERSATION]]
        return self._target.form.line(completion_id, metadata, fields)

    async def _messages(self, completion_id: str) -> list[Any]:
        """Return the messages that were sent, as far as the service has them."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = await self._page(completion_id, cursor)
            if page is None:
                return found
            found += [msgspec.Raw(item.raw) for item in page.items]
            last = page.items[-1].id if page.items else None
            if page.has_more is not True or last is None or last == cursor:
                return found
            cursor = last

    async def _page(self, completion_id: str, cursor: str | None) -> Any:  # noqa: ANN401 -- a page or None
        async def send(seconds: float, fresh: bool) -> Answer:  # noqa: FBT001 -- as `Send` says
            return await self._client.messages(
                completion_id, after=cursor, limit=PAGE, order="asc", timeout_seconds=seconds, fresh=fresh
            )

        answer = await self._asking.ask(completion_id, send, lambda _: SUCCEEDED)
        return read_page(answer.body) if answer.verdict.kind is Kind.OK else None
