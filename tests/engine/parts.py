"""Single parts of the engine on the virtual clock. Use them within `tests.virtual.run`."""

import asyncio
import random
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from structlog.testing import CapturingLogger

from worker.api import Answer, Kind, RetryPolicy, Verdict
from worker.changes import MetadataChange, Mode
from worker.engine.applier import Applier
from worker.engine.blame import Blame, Rules
from worker.engine.calls import Calls
from worker.engine.clock import Clock
from worker.engine.keys import KeyReader, ReadKey
from worker.engine.leases import Leases
from worker.engine.ledger import Ledger
from worker.engine.outcome import Outcome
from worker.engine.tallies import Tallies
from worker.engine.trials import Trials
from worker.engine.work import Work
from worker.flow import FAILED, OUTAGE, SUCCEEDED, Cause, End, Ended, Flow, Operation
from worker.queue import Claim, Queue, QueuedChange
from worker.queue.memory import MemoryQueue

OK = Verdict(Kind.OK, 200)
NOT_FOUND = Verdict(Kind.NOT_FOUND, 404, error="HTTP 404 Not Found", about="completion")
# A rejection that may have other causes than the change, and one that blames its metadata for certain.
REJECTED = Verdict(Kind.REJECTED, 400, error="HTTP 400 Bad Request")
REJECTED_FOR_CERTAIN = Verdict(Kind.REJECTED, 400, error="HTTP 400 Bad Request", certain=True)

ID = "chatcmpl-1"

Said = Verdict | Answer | Exception


def failed(delay_seconds: float | None = None) -> Verdict:
    """The verdict of a 503, with or without a ``Retry-After``."""
    return Verdict(Kind.RETRY, 503, error="HTTP 503 Service Unavailable", delay_seconds=delay_seconds)


def throttled(delay_seconds: float) -> Verdict:
    """The verdict of a 429."""
    return Verdict(Kind.THROTTLED, 429, error="HTTP 429 Too Many Requests", delay_seconds=delay_seconds)


def now() -> float:
    return asyncio.get_running_loop().time()


def clock() -> Clock:
    loop = asyncio.get_running_loop()
    return Clock(monotonic=loop.time, unix=loop.time)


def flow(**options: Any) -> Flow:
    """Flow control for eight requests at once, without a limit, with five seconds of patience."""
    given: dict[str, Any] = {"max_concurrency": 8, "patience_seconds": 5.0, "clock": now, "random": random.Random(1)}
    return Flow(**given | options)


def claim_of(
    *metadata: str,
    ages: Sequence[float] | None = None,
    trials: Sequence[Trials] | None = None,
    mode: Mode = "replace",
    lease: int = 1,
    as_of: Sequence[float | None] | None = None,
    newest: float | None = None,
    batches: Sequence[str | None] | None = None,
) -> Claim:
    """A claim on `ID`, with a change for each JSON text; ages are in seconds, the oldest first.

    The store's clock shows 1000 now. `trials` are the records of the changes. With `newest`, a change with this `as_of`
    was applied earlier.
    """
    nothing = [None] * len(metadata)
    ages = ages or [0.0] * len(metadata)
    met = [each.text() for each in trials] if trials else [None] * len(metadata)
    stored = [
        QueuedChange(number, ID, None, mode, text, enqueued_at=1_000.0 - age, trials=before, as_of=dated, batch=batch)
        for number, (text, age, before, dated, batch) in enumerate(
            zip(metadata, ages, met, as_of or nothing, batches or nothing, strict=True), 1
        )
    ]
    return Claim(ID, lease, tuple(stored), age_seconds=ages[0], newest_as_of=newest)


def work_on(claim: Claim, *, lease_seconds: float = 300.0) -> Work:
    return Work(claim, claimed_at=now(), deadline=now() + lease_seconds)


@dataclass
class Script:
    """A client that gives these answers in turn, or raises them. Once they are used up, it does its work."""

    answers: list[Said]
    stored: dict[str, str] = field(default_factory=dict)
    takes_seconds: float = 0.0
    asked_at: list[float] = field(default_factory=list)
    sent: list[dict[str, str]] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)  # of each update: whether it asked for a fresh connection

    async def get(self, _: str, *, timeout_seconds: float) -> Answer:  # noqa: ARG002 -- no answer is late here
        return await self._next()

    async def update(
        self,
        _: str,
        metadata: Mapping[str, str],
        *,
        timeout_seconds: float,  # noqa: ARG002 -- likewise
        fresh: bool = False,
    ) -> Answer:
        self.sent.append(dict(metadata))
        self.fresh.append(fresh)
        return await self._next(dict(metadata))

    async def _next(self, metadata: dict[str, str] | None = None) -> Answer:
        self.asked_at.append(now())
        await asyncio.sleep(self.takes_seconds)
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Answer):
            return answer
        if answer.kind is Kind.OK and metadata is not None:
            self.stored = metadata
        return Answer(answer, dict(self.stored) if answer.kind is Kind.OK else None)


class Calling:
    """`Calls` and an `Applier` over a script, with all their neighbours."""

    def __init__(
        self,
        *answers: Verdict | Answer | Exception,
        stored: Mapping[str, str] | None = None,
        read_key: ReadKey | None = None,
        **rules: Any,
    ) -> None:
        self.client = Script(list(answers), dict(stored or {}))
        self.flow = flow()
        self.tallies = Tallies(clock())
        self.logger: Any = CapturingLogger()
        self.parked = 0
        self.were_parked = 0
        dice, policy = random.Random(1), RetryPolicy(base_seconds=0.01, cap_seconds=0.05)
        self.calls = Calls(
            self.flow,
            policy,
            dice,
            self.tallies,
            clock=now,
            request_timeout_seconds=60.0,
            keys=KeyReader(read_key, self.flow, now),
            parked=self._parked,
        )
        given: dict[str, Any] = {"max_attempts": 8, "give_up_after_seconds": 600.0, "not_found_grace_seconds": 900.0}
        self.rules = Rules(**given | rules)
        self.applier = Applier(
            self.client, self.calls, self.flow, self.rules, policy, dice, now, self.tallies, self.logger
        )

    async def call(self, work: Work) -> Answer:
        """One update of `ID`."""

        async def send(seconds: float) -> Answer:
            return await self.client.update(ID, {"grade": "A"}, timeout_seconds=seconds)

        return await self.calls.call(work, self.ledger(work), "update", send, lambda _: SUCCEEDED)

    def blame(self, work: Work) -> Blame:
        """The failures of this work."""
        return Blame(work, self.flow, self.rules, now)

    def ledger(self, work: Work) -> Ledger:
        """What is decided of this work."""
        return Ledger(work, self.blame(work))

    async def apply(self, *metadata: str, **claim: Any) -> Outcome:
        """The outcome of a claim with these changes."""
        return await self.applier.apply(work_on(claim_of(*metadata, **claim)))

    @contextmanager
    def _parked(self, _: Work) -> Iterator[None]:
        self.parked += 1
        self.were_parked += 1
        yield
        self.parked -= 1


def end(flow: Flow, ended: Ended, *, completion_id: str = "other", operation: Operation = "update") -> None:
    """Start and end one request of this completion."""
    permit = flow.start(completion_id, operation)
    assert permit is not None
    permit.end(ended)


def others_get_through(flow: Flow, operation: Operation = "update") -> None:
    """Let another completion get through."""
    end(flow, SUCCEEDED, operation=operation)


def halt(flow: Flow, reason: str = OUTAGE) -> Cause:
    """Halt, by five completions that fail in a row."""
    for number in range(5):
        end(flow, Ended(End.FAILED, reason) if reason != OUTAGE else FAILED, completion_id=f"failed-{number}")
    cause = flow.snapshot().cause
    assert cause is not None
    return cause


def leases_on(
    queue: Queue, *, lease_seconds: float = 30.0, most: int = 1_000, most_bytes: int = 1_000_000
) -> tuple[Leases, Tallies, CapturingLogger]:
    """Leases, their tallies and their log."""
    tallies, logger = Tallies(clock()), CapturingLogger()
    bound: Any = logger
    leases = Leases(queue, tallies, bound, clock=now, lease_seconds=lease_seconds, most=most, most_bytes=most_bytes)
    return leases, tallies, logger


async def queue_with(completion_ids: Iterable[str]) -> MemoryQueue:
    """A queue on the virtual clock, with a change for each of these completions."""
    queue = MemoryQueue(clock=now)
    await queue.put([MetadataChange(completion_id, {"grade": "A"}, "replace") for completion_id in completion_ids])
    return queue


def events(logger: CapturingLogger, name: str) -> list[dict[str, Any]]:
    """The fields of each logged event of this name."""
    return [call.kwargs for call in logger.calls if call.args == (name,)]


@contextmanager
def running(*loops: Coroutine[Any, Any, object]) -> Iterator[None]:
    """Let these loops run in this context; their errors are raised at its end."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    yield
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
