"""Read many completions at once, with the results in the order of the names."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain
from typing import Generic, Protocol, TypeVar

from worker.api import Answer, Kind
from worker.sync.asking import Asking, in_parallel
from worker.threads import in_thread

T = TypeVar("T")
R = TypeVar("R")

# Results that wait for a slow one; beyond that, the slow one comes out of order.
_MOST_HELD = 1_000
_MOST_HELD_BYTES = 16 * 1024 * 1024


class Gets(Protocol):
    """The service's completions; `worker.api.Client` implements it."""

    async def get(self, completion_id: str, *, timeout_seconds: float, fresh: bool = False) -> Answer:
        """Read a completion."""


class InOrder(Generic[R]):
    """Passes results on in the order of their start; a very slow one delays only `most` others, or 16 MiB of them.

    Args:
        size_of: the bytes that a result holds.
    """

    def __init__(
        self, hand_on: Callable[[R], object], most: int = _MOST_HELD, *, size_of: Callable[[R], int] = lambda _: 0
    ) -> None:
        self._hand_on = hand_on
        self._most = most
        self._size_of = size_of
        self._held: dict[int, R] = {}
        self._held_bytes = 0
        self._next = 0

    def put(self, number: int, result: R) -> None:
        """Add the result of the read with this number, from 0."""
        if number > self._next:
            self._held[number] = result
            self._held_bytes += self._size_of(result)
        else:
            self._hand_on(result)
            self._next = max(self._next, number + 1)
        self._hand_on_held()
        while len(self._held) > self._most or self._held_bytes > _MOST_HELD_BYTES:
            self._next = min(self._held)
            self._hand_on_held()

    def _hand_on_held(self) -> None:
        while self._next in self._held:
            result = self._held.pop(self._next)
            self._held_bytes -= self._size_of(result)
            self._hand_on(result)
            self._next += 1


async def get(asking: Asking, client: Gets, completion_id: str) -> Answer:
    """Read a completion; the answer is done, not found, or refused."""

    async def send(seconds: float, fresh: bool) -> Answer:  # noqa: FBT001 -- as `Send` says
        return await client.get(completion_id, timeout_seconds=seconds, fresh=fresh)

    return await asking.ask(completion_id, send)


async def read_each(
    asking: Asking,
    things: Iterator[T],
    look: Callable[[T], Awaitable[R]],
    hand_on: Callable[[R], object],
    settle: Callable[[], Awaitable[object]],
    *,
    size_of: Callable[[R], int],
) -> None:
    """Read each completion, as many at once as the terms allow.

    Args:
        look: makes the requests.
        hand_on: receives the results, in order unless one is very slow.
        settle: awaited after each result, to write collected lines.
        size_of: the bytes that a result holds while it waits for its turn.
    """
    numbered = enumerate(await _begun(things))
    order = InOrder(hand_on, size_of=size_of)
    asking.nothing_more = False

    async def read() -> None:
        for number, thing in numbered:
            order.put(number, await look(thing))
            await settle()
        asking.nothing_more = True

    await in_parallel(asking.terms.max_concurrency, read)


async def _begun(things: Iterator[T]) -> Iterable[T]:
    """Return the iterator, with the first item fetched in a thread: the query may take long."""
    for first in await in_thread(lambda: [thing for _, thing in zip(range(1), things, strict=False)]):
        return chain((first,), things)
    return ()


def shown(answer: Answer) -> dict[str, str] | None:
    """Return the metadata of the answer; None if it is incomplete, or no completion exists."""
    if answer.verdict.kind is not Kind.OK or not answer.whole:
        return None
    return answer.metadata
