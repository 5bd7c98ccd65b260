"""Trying again: tenacity within the worker for short waits, the arithmetic of backoff for long ones in the queue."""

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from worker.api.answer import Answer
from worker.api.verdict import Kind


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait: exponential backoff with full jitter.

    Args:
        base_seconds: the longest wait after the first failure.
        factor: the growth of the longest wait with each further failure.
        cap_seconds: its upper bound.
        max_tries: further tries within the worker, after the first.
    """

    base_seconds: float = 0.5
    factor: float = 2.0
    cap_seconds: float = 600.0
    max_tries: int = 2


def backoff_seconds(attempt: int, policy: RetryPolicy, random: random_module.Random) -> float:
    """Return how long to wait after a failure: a random time between zero and the policy's bound.

    Full jitter needs the least work until all clients are through (Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015).

    Args:
        attempt: how many attempts have failed, with this one.
    """
    steps = min(max(attempt, 1) - 1, 64)  # enough for any sensible cap; more might overflow a float
    return random.uniform(0.0, min(policy.cap_seconds, policy.base_seconds * policy.factor**steps))


async def retry(
    first: Answer,
    attempt: Callable[[], Awaitable[Answer]],
    *,
    policy: RetryPolicy,
    max_tries: int,
    may_wait: Callable[[float], bool],
    random: random_module.Random,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """Try again after a first failure, while it makes sense to wait here; return the last answer.

    Exceptions of `attempt`, and cancellation, propagate. The function takes an answer, not a call: nearly all requests
    succeed at once, and pay nothing for it.

    Args:
        first: the answer of the first try.
        attempt: makes the same call once more.
        max_tries: bounds further tries, if it is lower than the policy's.
        may_wait: asked last before each further try, with the seconds to wait.
        random: the source of jitter.
    """
    tries = min(policy.max_tries, max_tries)
    in_hand = [first]

    async def next_answer() -> Answer:
        return in_hand.pop() if in_hand else await attempt()

    def wait_seconds(state: RetryCallState) -> float:
        delay_seconds = _answer(state).verdict.delay_seconds
        return backoff_seconds(state.attempt_number, policy, random) if delay_seconds is None else delay_seconds

    def must_stop(state: RetryCallState) -> bool:
        return state.attempt_number > tries or not may_wait(state.upcoming_sleep)

    retrying = AsyncRetrying(
        retry=retry_if_result(_may_pass),
        wait=wait_seconds,
        stop=must_stop,
        sleep=sleep,
        retry_error_callback=_answer,
    )
    return await retrying(next_answer)


def _may_pass(answer: Answer) -> bool:
    """Whether the same request may work shortly."""
    return answer.verdict.kind is Kind.RETRY


def _answer(state: RetryCallState) -> Answer:
    assert state.outcome is not None  # noqa: S101 -- tenacity asks after a try
    answer: Answer = state.outcome.result()
    return answer
