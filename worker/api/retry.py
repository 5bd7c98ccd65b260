"""Trying again: tenacity within the worker, for short waits; the arithmetic of backoff for long ones in the queue."""

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from worker.api.answer import Answer
from worker.api.verdict import Kind, Verdict


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait before: exponential backoff with full jitter.

    Args:
        base_seconds: the longest wait after the first failure.
        factor: by which it grows with each further one.
        cap_seconds: which it never exceeds.
        max_tries: further tries within the worker, after the first.
        max_wait_seconds: the longest wait within the worker; a longer one is for the queue.
    """

    base_seconds: float = 0.5
    factor: float = 2.0
    cap_seconds: float = 600.0
    max_tries: int = 2
    max_wait_seconds: float = 5.0


def backoff_seconds(
    attempt: int, policy: RetryPolicy, random: random_module.Random, *, asked_seconds: float | None = None
) -> float:
    """Return how long to wait after a failure: somewhere between nothing and the policy's bound.

    Full jitter, since it is what takes the least work until all are through (Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015).

    Args:
        attempt: how many attempts have failed, this one included.
        asked_seconds: the service's own delay; it wins when it is longer.
    """
    steps = min(max(attempt, 1) - 1, 64)  # beyond, any sensible cap is reached, and a float might overflow
    bound = min(policy.cap_seconds, policy.base_seconds * policy.factor**steps)
    return max(random.uniform(0.0, bound), asked_seconds or 0.0)


def is_retryable(verdict: Verdict) -> bool:
    """Whether the same request may work shortly."""
    return verdict.kind is Kind.RETRY


async def retry(
    first: Answer,
    attempt: Callable[[], Awaitable[Answer]],
    *,
    policy: RetryPolicy,
    deadline: Callable[[], float],
    max_tries: int | None = None,
    retryable: Callable[[Verdict], bool] = is_retryable,
    may_retry: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    random: random_module.Random | None = None,
) -> Answer:
    """Try again after a first failure, as long as it makes sense to wait here; returns the last answer there was.

    Exceptions of `attempt`, cancellation among them, propagate.

    Args:
        first: what the first try came to.
        attempt: makes the same call once more.
        deadline: the lease's end on `clock`, asked anew each time, since a heartbeat moves it.
        max_tries: a lower bound than the policy's on further tries.
        retryable: which verdicts to try again for.
        may_retry: asked last, before each further try that would be made: a shared budget, say.
        clock: the event loop's, if none is given.
        random: the source of jitter.
    """
    now = clock or asyncio.get_running_loop().time
    jitter = random or _jitter
    tries = policy.max_tries if max_tries is None else min(policy.max_tries, max_tries)
    last, is_first = first, True

    async def next_try() -> Answer:
        nonlocal last, is_first
        if is_first:
            is_first = False
        elif now() < deadline():  # the lease may have been lost while waiting
            last = await attempt()
        return last

    def wait_seconds(state: RetryCallState) -> float:
        delay = last.verdict.delay_seconds
        return backoff_seconds(state.attempt_number, policy, jitter) if delay is None else delay

    def must_stop(state: RetryCallState) -> bool:
        wait = state.upcoming_sleep
        return (
            state.attempt_number > tries
            or wait > policy.max_wait_seconds
            or now() + wait >= deadline()
            or not may_retry()
        )

    retrying = AsyncRetrying(
        retry=retry_if_result(lambda answer: retryable(answer.verdict)),
        wait=wait_seconds,
        stop=must_stop,
        sleep=sleep,
        retry_error_callback=lambda _: last,
    )
    return await retrying(next_try)


_jitter = random_module.Random()  # noqa: S311 -- jitter is no secret
