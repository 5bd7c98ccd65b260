"""Retries within the worker, with a clock and a sleep that the test moves."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.properties import unhurried
from worker.api import Answer, Kind, RetryPolicy, Verdict, backoff_seconds, retry

OK = Answer(Verdict(Kind.OK, 200))
POLICY = RetryPolicy(base_seconds=1.0, factor=2.0, cap_seconds=600.0, max_tries=3)


def failed(number: int = 0, *, kind: Kind = Kind.RETRY, delay_seconds: float | None = None) -> Answer:
    return Answer(Verdict(kind, 500, f"req_{number}", delay_seconds=delay_seconds))


class FullJitter(random.Random):
    """Always draws the longest wait, so that a test can see the bounds."""

    def uniform(self, _a: float, b: float) -> float:
        return b


@dataclass
class Bench:
    """A service that gives these answers, and a clock that moves only by waits."""

    answers: Iterable[Answer]
    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    tries: int = 0
    call_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.remaining = iter(self.answers)

    async def attempt(self) -> Answer:
        self.tries += 1
        self.now += self.call_seconds
        return next(self.remaining)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def run(
        self,
        first: Answer,
        *,
        max_tries: int = 9,
        may_wait: Callable[[float], bool] = lambda _: True,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> Answer:
        return await retry(
            first,
            self.attempt,
            policy=POLICY,
            max_tries=max_tries,
            may_wait=may_wait,
            sleep=sleep or self.sleep,
            random=FullJitter(),
        )


async def test_retries_go_on_until_the_service_answers() -> None:
    bench = Bench([failed(1), OK])
    assert await bench.run(failed()) is OK
    assert bench.tries == 2
    assert bench.waits == [1.0, 2.0]


async def test_the_last_answer_is_returned_when_the_tries_are_used_up() -> None:
    answers = [failed(number) for number in range(1, 9)]
    bench = Bench(answers)
    assert await bench.run(failed()) is answers[2]
    assert bench.waits == [1.0, 2.0, 4.0]


async def test_the_caller_may_allow_fewer_tries_but_not_more() -> None:
    for allowed, tries in [(0, 0), (1, 1), (9, 3)]:
        bench = Bench([failed()] * 9)
        await bench.run(failed(), max_tries=allowed)
        assert bench.tries == tries


async def test_a_retry_waits_for_as_long_as_the_service_asks() -> None:
    bench = Bench([failed(delay_seconds=0.25), OK])
    assert await bench.run(failed(delay_seconds=4.5)) is OK
    assert bench.waits == [4.5, 0.25]


async def test_a_wait_that_is_refused_is_not_begun() -> None:
    first = failed(delay_seconds=5.1)
    bench = Bench([OK])
    assert await bench.run(first, may_wait=lambda seconds: seconds <= 5.0) is first
    assert bench.waits == []


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.RETRY])
async def test_only_answers_of_kind_retry_are_tried_again(kind: Kind) -> None:
    bench = Bench([OK])
    first = failed(kind=kind)
    assert await bench.run(first) is first
    assert bench.tries == 0


async def test_an_answer_that_is_final_ends_the_tries() -> None:
    rejected = failed(kind=Kind.REJECTED)
    bench = Bench([failed(), rejected, OK])
    assert await bench.run(failed()) is rejected


async def test_may_wait_is_asked_only_before_a_possible_try() -> None:
    asked: list[float] = []

    def may_wait(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) < 3

    bench = Bench([failed(1), failed(2), OK])
    assert (await bench.run(failed(), may_wait=may_wait)).verdict.request_id == "req_2"
    assert asked == [1.0, 2.0, 4.0]
    await bench.run(OK, may_wait=may_wait)
    await bench.run(failed(), may_wait=may_wait, max_tries=0)
    assert len(asked) == 3


async def test_cancellation_during_a_wait_propagates() -> None:
    waiting = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    bench = Bench([OK])
    task = asyncio.create_task(bench.run(failed(), sleep=sleep))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.tries == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError, RuntimeError])
async def test_an_exception_of_an_attempt_propagates(error: type[BaseException]) -> None:
    async def attempt() -> Answer:
        raise error

    with pytest.raises(error):
        await retry(
            failed(delay_seconds=0.0),
            attempt,
            policy=POLICY,
            max_tries=3,
            may_wait=lambda _: True,
            random=FullJitter(),
        )


async def test_calls_at_once_do_not_disturb_each_other() -> None:
    async def one(number: int) -> tuple[int, str | None]:
        answers = iter([*(failed(number) for _ in range(number % 3)), Answer(Verdict(Kind.OK, 200, f"req_{number}"))])
        tries = 0

        async def attempt() -> Answer:
            nonlocal tries
            tries += 1
            await asyncio.sleep(0)
            return next(answers)

        found = await retry(
            failed(delay_seconds=0.0),
            attempt,
            policy=RetryPolicy(0.0, max_tries=5),
            max_tries=5,
            may_wait=lambda _: True,
            random=FullJitter(),
        )
        assert found.verdict.kind is Kind.OK
        return tries, found.verdict.request_id

    found = await asyncio.gather(*(one(number) for number in range(30)))
    assert found == [(number % 3 + 1, f"req_{number}") for number in range(30)]


def test_backoff_grows_to_its_cap() -> None:
    policy = RetryPolicy(base_seconds=0.5, factor=2.0, cap_seconds=600.0)
    bounds = [backoff_seconds(attempt, policy, FullJitter()) for attempt in (0, 1, 2, 3, 11, 12, 5_000)]
    assert bounds == [0.5, 0.5, 1.0, 2.0, 512.0, 600.0, 600.0]


def test_the_same_seed_gives_the_same_backoff() -> None:
    first, second = ([backoff_seconds(n, POLICY, random.Random(7)) for n in range(9)] for _ in range(2))
    assert first == second


def test_jitter_is_full() -> None:
    jitter = random.Random(7)
    waits = [backoff_seconds(4, POLICY, jitter) for _ in range(1_000)]
    assert 0.0 <= min(waits) < 0.2
    assert 7.8 < max(waits) <= 8.0


@unhurried
@given(
    attempt=st.integers(-5, 10**9),
    base=st.floats(0.0, 1e6),
    factor=st.floats(1.0, 10.0),
    cap=st.floats(0.0, 1e6),
    seed=st.integers(0, 9),
)
def test_backoff_is_never_above_its_cap(attempt: int, base: float, factor: float, cap: float, seed: int) -> None:
    policy = RetryPolicy(base, factor, cap)
    assert 0.0 <= backoff_seconds(attempt, policy, random.Random(seed)) <= cap
