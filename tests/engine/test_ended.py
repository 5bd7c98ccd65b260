"""What came of a request, in flow control's terms, and whose fault a failure is."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from tests.engine.parts import OK, Calling, claim_of, failed, flow, now, others_get_through, throttled, work_on
from tests.virtual import in_virtual_time
from worker.api import Answer, Halt, Kind, RateLimit, Verdict
from worker.engine.calls import alone_seconds, ended, in_context, with_limits
from worker.engine.trials import Trials
from worker.engine.work import Work
from worker.flow import METADATA_HIDDEN, SERVICE_MERGES, SUCCEEDED, End, Ended, Limits

A = '{"grade":"A"}'
TOLD: dict[str, Any] = {"status": 429, "request_id": "req-1", "error": "slower", "delay_seconds": 7.0}


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (OK, SUCCEEDED),
        (Verdict(Kind.THROTTLED, **TOLD, slow_down=True), Ended(End.THROTTLED, **TOLD, slow_down=True)),
        (Verdict(Kind.HALTED, **TOLD, halt=Halt.FORBIDDEN), Ended(End.FAILED, "forbidden", **TOLD)),
        (Verdict(Kind.HALTED, **TOLD), Ended(End.FAILED, "refused", **TOLD)),
        (Verdict(Kind.RETRY, **TOLD), Ended(End.FAILED, "refused", **TOLD)),
        (Verdict(Kind.RETRY, **TOLD, foreign=True), Ended(End.FAILED, "foreign_answers", **TOLD)),
        (Verdict(Kind.NOT_FOUND, **TOLD), Ended(End.ABSENT, **TOLD)),
        (Verdict(Kind.REJECTED, **TOLD), Ended(End.REJECTED, **TOLD)),
        (Verdict(Kind.REJECTED, 400, delay_seconds=86_401.0), Ended(End.REJECTED, status=400)),  # no pause: too long
    ],
    ids=lambda value: value.kind if isinstance(value, Verdict) else "",
)
def test_every_verdict_is_told_with_all_that_it_says(verdict: Verdict, word: Ended) -> None:
    assert ended(verdict) == word
    if verdict.kind is not Kind.OK:
        assert ended(verdict, guilty=True) == msgspec.structs.replace(word, guilty=True)
        assert ended(verdict, alone=True) == msgspec.structs.replace(word, alone=True)


def test_what_the_headers_say_of_limits_is_told_with_it() -> None:
    limited = Verdict(Kind.THROTTLED, 429, rate_limit=RateLimit(60, 3, 1.5))
    limits = Limits(60, 3, 1.5)
    assert ended(limited) == Ended(End.THROTTLED, status=429, limits=limits)
    assert with_limits(SUCCEEDED, limited) == msgspec.structs.replace(SUCCEEDED, limits=limits)
    assert with_limits(SUCCEEDED, OK) is SUCCEEDED


class Longest(random.Random):
    """Draws the longest wait every time."""

    def uniform(self, _a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(("times", "seconds"), [(0, 2.5), (1, 5.0), (8, 640.0), (9, 1_125.0), (10**9, 1_125.0)])
def test_who_is_throttled_alone_stays_away_for_twice_as_long_each_time_up_to_a_quarter_of_an_hour(
    times: int, seconds: float
) -> None:
    assert alone_seconds(times, Longest()) == seconds


@in_virtual_time
async def test_an_absence_that_is_unclear_is_the_completions_once_such_a_call_has_worked() -> None:
    unclear = Answer(Verdict(Kind.HALTED, 404, halt=Halt.WRONG_URL, about="unclear"))
    control = flow()
    assert in_context(control, "update", unclear) is unclear
    others_get_through(control, "update")
    assert in_context(control, "get", unclear) is unclear
    assert in_context(control, "update", unclear).verdict == Verdict(Kind.NOT_FOUND, 404, about="unclear")


@in_virtual_time
async def test_a_wait_of_a_day_is_one_and_a_longer_one_is_a_quota() -> None:
    day, longer = (Answer(Verdict(Kind.RETRY, 503, delay_seconds=seconds)) for seconds in (86_400.0, 86_401.0))
    assert in_context(flow(), "update", day) is day
    assert in_context(flow(), "update", longer).verdict == Verdict(
        Kind.HALTED, 503, delay_seconds=86_401.0, halt=Halt.QUOTA
    )
    fine = Answer(Verdict(Kind.OK, 200, delay_seconds=86_401.0))
    assert in_context(flow(), "update", fine) is fine


@in_virtual_time
@pytest.mark.parametrize("envelope", [True, False])
async def test_a_failure_in_the_services_own_words_counts_where_another_worker_gets_through(envelope: bool) -> None:  # noqa: FBT001 -- what differs
    calling = Calling(Verdict(Kind.HALTED, 403, halt=Halt.FORBIDDEN, envelope=envelope))
    await asyncio.sleep(1.0)
    calling.flow.others_succeeded("update", 0.1)
    work = work_on(claim_of(A, trials=[Trials(failures=1, failed_at=999.5)]))
    await calling.call(work)
    assert work.trials[1].counted == int(envelope)


@in_virtual_time
@pytest.mark.parametrize("others", [True, False], ids=["others pass", "nothing passes"])
async def test_what_one_that_fails_alone_is_asked_to_wait_holds_up_no_other(others: bool) -> None:  # noqa: FBT001 -- what differs
    calling = Calling(failed(30.0))
    await asyncio.sleep(1.0)
    if others:
        others_get_through(calling.flow)
    await calling.call(work_on(claim_of(A, trials=[Trials(failures=1, failed_at=999.5)])))
    assert (calling.flow.snapshot().closed_for_seconds == 0.0) is others


@in_virtual_time
async def test_what_a_success_shows_halts_with_the_status_and_the_id_of_its_request() -> None:
    verdict = Verdict(Kind.OK, 201, "req-7")
    for answer, mode, reason in (
        (Answer(verdict, {"grade": "A", "old": "x"}), "replace", SERVICE_MERGES),
        (Answer(verdict, None), "merge", METADATA_HIDDEN),
    ):
        calling = Calling(*[answer] * 3)
        for number in range(3):
            claim = msgspec.structs.replace(claim_of(A, mode=mode), completion_id=f"chatcmpl-{number}")  # type: ignore[arg-type]  # a word of `Mode`
            await calling.applier.apply(work_on(claim))
        cause = calling.flow.snapshot().cause
        assert cause is not None
        assert (cause.reason, cause.status, cause.request_id, cause.completion_id) == (
            reason, 201, "req-7", "chatcmpl-2"
        )  # fmt: skip


@in_virtual_time
async def test_who_had_to_wait_for_the_key_is_named_as_any_other() -> None:
    async def read(_: bool) -> bool:  # noqa: FBT001 -- as the engine calls it
        return False

    calling = Calling(*[Verdict(Kind.HALTED, 401, halt=Halt.UNAUTHORIZED)] * 5, read_key=read)
    for number in range(5):
        await asyncio.sleep(1.0)
        await calling.call(work_on(msgspec.structs.replace(claim_of(A), completion_id=f"chatcmpl-{number}")))
    cause = calling.flow.snapshot().cause
    assert cause is not None
    assert cause.completion_id == "chatcmpl-4"


class Parking(Calling):
    """Notes which work is parked."""

    parked_work: Work | None = None

    @contextmanager
    def _parked(self, work: Work) -> Iterator[None]:
        self.parked_work = work
        yield


@in_virtual_time
async def test_five_seconds_are_waited_for_here_by_the_work_that_is_parked() -> None:
    calling, work = Parking(failed(5.0), OK), work_on(claim_of(A))
    assert (await calling.call(work)).verdict.kind is Kind.OK
    assert calling.parked_work is work
    assert 5.0 <= now() < 6.0


@in_virtual_time
async def test_a_wait_that_ends_with_the_lease_is_too_long() -> None:
    calling = Calling(failed(4.0), OK)
    assert (await calling.call(work_on(claim_of(A), lease_seconds=4.0))).verdict.kind is Kind.RETRY
    assert now() == 0.0


@in_virtual_time
async def test_a_request_of_an_earlier_claim_is_repeated_once_however_often_it_is_throttled() -> None:
    calling = Calling(throttled(0.1), throttled(0.1), OK)
    await calling.call(work_on(claim_of(A, trials=[Trials(failures=1)])))
    assert calling.tallies.requests_retried == 1
