"""Walk the list of stored completions page by page, while others add and delete some."""

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from worker.api import Answer, Kind
from worker.api.pages import Listed, Page, read_page
from worker.changes.change import COMPLETION_ID
from worker.engine import Ending
from worker.flow import FOREIGN, REJECTED, SUCCEEDED, Cause, Ended
from worker.sync.asking import Asking, Unfinished

Order = Literal["asc", "desc"]

PAGE = 100  # the service's largest page
REMEMBERED = 200  # recent ids: the walk continues from one of them if the last one was deleted

_VANISHED = "none of the last completions that were listed is there any more: start anew"
_CIRCLE = "the pages of the list go in a circle: the service ignores the cursor"


class Lists(Protocol):
    """The service's list; `worker.api.Client` implements it."""

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
        """Read a page."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which completions are wanted.

    Args:
        metadata: pairs that they must have.
        created_after, created_before: Unix time in seconds, inclusive and exclusive; None for no bound.
        limit: how many at most; None for all.
        order: by time.
    """

    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after: float | None = None
    created_before: float | None = None
    limit: int | None = None
    order: Order = "asc"

    @property
    def is_checked_here(self) -> bool:
        """Whether this filter may drop listed items."""
        return bool(self.metadata) or self.created_after is not None or self.created_before is not None

    def takes(self, item: Listed) -> bool:
        """Whether the item passes: the service's own filter may still use older metadata."""
        if item.metadata is not None and any(item.metadata.get(key) != value for key, value in self.metadata.items()):
            return False
        if self.created_after is None and self.created_before is None:
            return True
        return item.created is not None and not self._is_early(item.created) and not self._is_late(item.created)

    def is_beyond(self, item: Listed) -> bool:
        """Whether the item comes after all wanted ones, in the walk's order."""
        if item.created is None:
            return False
        return self._is_late(item.created) if self.order == "asc" else self._is_early(item.created)

    def _is_early(self, created: int) -> bool:
        return self.created_after is not None and created < self.created_after

    def _is_late(self, created: int) -> bool:
        return self.created_before is not None and created >= self.created_before


class Walk:
    """One walk through the list; yields each completion that exists all the time exactly once.

    Args:
        client: asks for pages.
        wanted: the filter.
        behind: the last ids of an earlier walk, oldest first; this walk continues after them.

    `passed_over` counts listed completions that the filter drops; `nameless` those without an id.
    """

    def __init__(self, asking: Asking, client: Lists, wanted: Filter, *, behind: Sequence[str] = ()) -> None:
        self._asking = asking
        self._client = client
        self._wanted = wanted
        self._size = PAGE
        self._recent = deque(behind, maxlen=REMEMBERED)
        self._cursor = behind[-1] if behind else None
        self._cursors: set[int] = {hash(behind[-1])} if behind else set()  # one per page, to detect a circle
        self.passed_over = 0
        self.nameless = 0

    def __repr__(self) -> str:
        return f"<Walk [after {self._cursor}]>"

    async def pages(self) -> AsyncIterator[list[Listed]]:
        """Read page after page.

        Raises:
            Unfinished: nothing gets through, or the pages are inconsistent.
        """
        self._asking.nothing_more = True  # pages are read one at a time
        left = self._wanted.limit
        while left is None or left > 0:
            page = await self._next(left)
            found = self._unseen(page)
            taken = [item for item in found if self._wanted.takes(item)]
            self.passed_over += sum(not self._wanted.is_beyond(item) for item in found) - len(taken)
            taken = taken if left is None else taken[:left]
            left = None if left is None else left - len(taken)
            yield taken
            is_beyond = bool(page.items) and all(map(self._wanted.is_beyond, page.items))
            if is_beyond or not page.items or page.has_more is False:
                return
            self._cursor = next(item.id for item in reversed(page.items) if _is_named(item))
            self._cursors.add(hash(self._cursor))

    def _unseen(self, page: Page) -> list[Listed]:
        """Return the page's new items, and remember them."""
        known, new = set(self._recent), list[Listed]()
        for item in page.items:
            if not _is_named(item):
                self.nameless += 1
            elif item.id is not None and item.id not in known:
                known.add(item.id)
                self._recent.append(item.id)
                new.append(item)
        return new

    async def _next(self, left: int | None) -> Page:
        """Return the page after the cursor; if the service does not know it, the page after an earlier id."""
        word: Answer | None = None
        for cursor in self._places():
            answer, page = await self._ask(cursor, left)
            if page is not None and not self._goes_back(page):
                return page
            word = answer if page is None else word
        if word is None:
            raise Unfinished(Ending.HALTED, Cause(FOREIGN, _CIRCLE), {}, 0.0)
        verdict = word.verdict
        error = f"{_VANISHED} ({verdict.error})" if self._cursor else verdict.error
        raise Unfinished(Ending.HALTED, Cause(REJECTED, error, verdict.status, verdict.request_id), {}, 0.0)

    def _places(self) -> Iterator[str | None]:
        """Yield cursors to try: the current one, then earlier ids in ever longer steps."""
        yield self._cursor
        if self._cursor is None:
            return
        before = [each for each in reversed(self._recent) if each != self._cursor]
        steps = [2**power - 1 for power in range(len(before).bit_length())]
        yield from (before[step] for step in steps)
        yield from (each for position, each in enumerate(before) if position not in steps)

    def _goes_back(self, page: Page) -> bool:
        """Whether the page is an old one: the service did not know the cursor and started again."""
        recent = set(self._recent)
        named = [item.id for item in page.items if item.id is not None]
        return any(hash(each) in self._cursors and each not in recent for each in named) or (
            page.has_more is not False and bool(named) and recent.issuperset(named)
        )

    async def _ask(self, cursor: str | None, left: int | None) -> tuple[Answer, Page | None]:
        """Read one page; an answer that is no complete page is asked for again."""
        wanted, page = self._wanted, None

        async def send(seconds: float, fresh: bool) -> Answer:  # noqa: FBT001 -- as `Send` says
            nonlocal page
            limit = self._size if left is None or wanted.is_checked_here else min(self._size, left)
            answer = await self._client.list(
                model=wanted.model,
                metadata=wanted.metadata,
                after=cursor,
                limit=limit,
                order=wanted.order,
                timeout_seconds=seconds,
                fresh=fresh,
            )
            if answer.verdict.kind is not Kind.OK:
                return answer
            page = read_page(answer.body)
            problem = self._problem(answer, page)
            if problem is None:
                return answer
            page = None
            verdict = msgspec.structs.replace(answer.verdict, kind=Kind.RETRY, error=problem, foreign=True)
            return msgspec.structs.replace(answer, verdict=verdict)

        answer = await self._asking.ask(cursor or "the first page", send, _shown_by_list)
        return answer, page

    def _problem(self, answer: Answer, page: Page | None) -> str | None:
        """Return what is wrong with a page whose status is success; None if it is right."""
        if answer.unread:
            self._size = max(1, self._size // 2)
            return "the page is too large to be read, or has no body"
        if page is None:
            return "the answer is no page of a list"
        if page.has_more and not page.items:
            return "the page is empty, and says that there is more"
        if page.items and not any(map(_is_named, page.items)):
            return "the page shows no ids of completions"
        return None


def _is_named(item: Listed) -> bool:
    return item.id is not None and COMPLETION_ID.fullmatch(item.id) is not None


def _shown_by_list(_: Answer) -> Ended:
    return SUCCEEDED
