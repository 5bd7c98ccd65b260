"""One request through flow control: which failures count, which are retried here, and which go back to the queue."""

import asyncio

import msgspec
import pytest

from tests.engine.parts import (
    ID,
    NOT_FOUND,
    OK,
    REJECTED,
    Calling,
    claim_of,
    end,
    failed,
    halt,
    now,
    others_get_through,
    running,
    throttled,
    work_on,
)
from tests.virtual import in_virtual_time
from worker.api import Answer, Halt, Kind, RateLimit, Verdict
from worker.engine.calls import GiveBack
from worker.engine.outcome import Deferral
from worker.engine.trials import Trials
from worker.engine.work import Work
from worker.flow import FAILED, SUCCEEDED, Ended, GateState

CLAIM = claim_of('{"grade":"A"}')
BAD_KEY = Verdict(Kind.HALTED, 401, error="bad key", halt=Halt.UNAUTHORIZED, envelope=True)


def _failures(work: Work) -> tuple[int, int]:
    """How often its change has failed, and how many of these failures count."""
    return work.trials[1].failures, work.trials[1].counted


@in_virtual_time
async def test_a_throttled_request_is_sent_again_and_is_no_failure() -> None:
    calling, work = Calling(throttled(1.0), throttled(1.0), OK), work_on(CLAIM)
    answer = await calling.call(work)
    assert answer.verdict.kind is Kind.OK
    assert _failures(work) == (0, 0)
    assert calling.tallies.requests_retried == 0
    first, second, third = calling.client.asked_at
    assert second - first >= 1.0
    assert third - second >= 1.0


@in_virtual_time
async def test_the_limits_that_a_success_announces_are_kept() -> None:
    announced = [Verdict(Kind.OK, 200, rate_limit=RateLimit(600, left, 0.1 * (600 - left))) for left in (599, 590)]
    calling = Calling(*announced)
    for _ in announced:
        await calling.call(work_on(CLAIM))
    assert calling.flow.snapshot().rate_per_second == pytest.approx(10.0, rel=0.01)


@in_virtual_time
async def test_a_long_retry_after_snoozes_the_claim_without_a_failure() -> None:
    calling, work = Calling(throttled(60.0)), work_on(CLAIM)
    with pytest.raises(GiveBack) as given_back:
        await calling.call(work)
    assert given_back.value.deferral is Deferral.SNOOZED
    assert 62.0 <= given_back.value.delay_seconds < 63.0  # after those that only wait
    assert (_failures(work), calling.client.asked_at) == ((0, 0), [0.0])
    with pytest.raises(GiveBack) as waiting:
        await calling.call(_work_on("other"))
    assert waiting.value.delay_seconds == 60.0


@in_virtual_time
async def test_a_failure_is_tried_again_at_once_and_recorded() -> None:
    calling, work = Calling(failed(), failed(), OK), work_on(CLAIM)
    assert (await calling.call(work)).verdict.kind is Kind.OK
    assert (_failures(work), calling.tallies.requests_retried) == ((2, 0), 2)
    assert now() < 1.0


@in_virtual_time
async def test_the_worker_makes_no_more_tries_than_the_policy_says() -> None:
    calling = Calling(*[failed()] * 9)
    assert (await calling.call(work_on(CLAIM))).verdict.kind is Kind.RETRY
    assert len(calling.client.asked_at) == 1 + 2


@in_virtual_time
@pytest.mark.parametrize("others", [True, False], ids=["others pass", "nothing passes"])
async def test_a_failure_counts_if_others_got_through_since_the_previous_one(others: bool) -> None:  # noqa: FBT001 -- what differs
    calling, work = Calling(BAD_KEY, BAD_KEY, BAD_KEY), work_on(CLAIM)
    for _ in range(3):
        await asyncio.sleep(1.0)
        if others:
            others_get_through(calling.flow)
        await asyncio.sleep(1.0)
        await calling.call(work)
    assert _failures(work) == (3, 2 if others else 0)  # the first has none before it


@in_virtual_time
async def test_while_halted_the_worker_makes_no_retry() -> None:
    calling, work = Calling(failed(2.0), OK), work_on(CLAIM)
    for number in range(4):  # this one is the fifth
        end(calling.flow, FAILED, completion_id=f"other-{number}")
    assert (await calling.call(work)).verdict.kind is Kind.RETRY
    assert calling.flow.snapshot().gate is GateState.HALTED
    assert len(calling.client.asked_at) == 1


@in_virtual_time
async def test_a_probe_is_one_request_and_nothing_counts_against_it() -> None:
    calling = Calling(failed(), OK)
    work = work_on(claim_of('{"grade":"A"}', trials=[Trials(failures=3, counted=2, failed_at=999.0)]))
    others_get_through(calling.flow)
    halt(calling.flow)
    assert calling.flow.take_probe(ID)
    work.is_probe = True
    assert (await calling.call(work)).verdict.kind is Kind.RETRY
    assert (len(calling.client.asked_at), _failures(work)) == (1, (4, 2))


@in_virtual_time
async def test_an_empty_retry_budget_leaves_the_retry_to_the_queue() -> None:
    calling = Calling(failed(), OK)
    while calling.flow.may_retry():
        pass
    assert (await calling.call(work_on(CLAIM))).verdict.kind is Kind.RETRY
    assert len(calling.client.asked_at) == 1


@in_virtual_time
async def test_each_retry_spends_a_token_of_the_budget() -> None:
    calling = Calling(*[failed()] * 2)
    await calling.call(work_on(CLAIM))
    left = 0
    while calling.flow.may_retry():
        left += 1
    assert left == 10 - 2  # a full budget is ten


@in_virtual_time
@pytest.mark.parametrize("verdict", [OK, NOT_FOUND, REJECTED], ids=lambda verdict: verdict.kind)
async def test_a_final_answer_is_not_asked_for_again(verdict: Verdict) -> None:
    calling, work = Calling(verdict, OK), work_on(CLAIM)
    assert (await calling.call(work)).verdict == verdict
    assert (_failures(work), len(calling.client.asked_at)) == ((0, 0), 1)


@in_virtual_time
async def test_a_work_that_waits_for_a_retry_makes_room_for_another() -> None:
    calling = Calling(failed(2.0), OK)
    with running(_call(calling, work_on(CLAIM))):
        await asyncio.sleep(1.0)
        assert calling.parked == 1
        await asyncio.sleep(2.0)
        assert (calling.parked, calling.were_parked) == (0, 1)


async def _call(calling: Calling, work: Work) -> None:
    await calling.call(work)


@in_virtual_time
@pytest.mark.parametrize("delay_seconds", [5.5, 60.0])
async def test_no_lease_is_held_through_a_long_wait(delay_seconds: float) -> None:
    calling = Calling(failed(delay_seconds), OK)
    assert (await calling.call(work_on(CLAIM))).verdict.delay_seconds == delay_seconds
    assert now() == 0.0


@in_virtual_time
async def test_no_wait_outlasts_the_lease() -> None:
    calling = Calling(failed(4.0), OK)
    assert (await calling.call(work_on(CLAIM, lease_seconds=3.0))).verdict.kind is Kind.RETRY
    assert now() == 0.0


@in_virtual_time
async def test_no_request_starts_on_a_lease_that_has_run_out() -> None:
    calling, work = Calling(), work_on(CLAIM)
    await asyncio.sleep(300.0)
    with pytest.raises(GiveBack) as given_back:
        await calling.call(work)
    assert given_back.value.deferral is Deferral.RELEASED
    assert not calling.client.asked_at
    assert calling.flow.snapshot().in_flight == 0


@in_virtual_time
async def test_a_refusal_of_the_key_alone_does_not_halt_and_is_not_retried() -> None:
    calling, work = Calling(BAD_KEY, OK), work_on(CLAIM)
    assert (await calling.call(work)).verdict == BAD_KEY
    assert (_failures(work), len(calling.client.asked_at)) == ((1, 0), 1)
    assert calling.flow.snapshot().gate is GateState.OPEN


@in_virtual_time
async def test_five_refusals_halt_and_the_next_claim_is_given_back_without_a_failure() -> None:
    calling = Calling(*[BAD_KEY] * 5)
    for number in range(5):
        await calling.call(_work_on(f"chatcmpl-{number}"))
    cause = calling.flow.snapshot().cause
    assert cause is not None
    assert (cause.reason, cause.error, cause.status, cause.completion_id) == (
        "unauthorized", "bad key", 401, "chatcmpl-4"
    )  # fmt: skip
    work = work_on(CLAIM)
    with pytest.raises(GiveBack) as given_back:
        await calling.call(work)
    assert given_back.value.deferral is Deferral.RELEASED
    assert (_failures(work), len(calling.client.asked_at)) == ((0, 0), 5)


def _work_on(completion_id: str) -> Work:
    return work_on(msgspec.structs.replace(CLAIM, completion_id=completion_id))


@in_virtual_time
async def test_a_stopping_worker_begins_and_retries_nothing() -> None:
    calling = Calling(failed(), OK)
    calling.client.takes_seconds = 1.0
    with running(_call(calling, work_on(CLAIM))):
        await asyncio.sleep(0.5)
        calling.calls.stopping = True
        await asyncio.sleep(10.0)
    assert len(calling.client.asked_at) == 1
    with pytest.raises(GiveBack):
        await calling.call(work_on(CLAIM))


@in_virtual_time
async def test_a_cancelled_call_frees_its_slot_and_is_no_evidence() -> None:
    calling, work = Calling(), work_on(CLAIM)
    calling.client.takes_seconds = 10.0
    task = asyncio.create_task(calling.call(work))
    await asyncio.sleep(1.0)
    assert work.in_flight
    task.cancel()
    await asyncio.wait([task])
    assert not work.in_flight
    assert calling.flow.snapshot().in_flight == 0
    assert calling.tallies.requests.total() == 0


@in_virtual_time
async def test_an_exception_in_the_handling_of_an_answer_frees_the_slot() -> None:
    calling, work = Calling(OK), work_on(CLAIM)

    async def send(seconds: float) -> Answer:
        return await calling.client.update(ID, {"grade": "A"}, timeout_seconds=seconds)

    def shows(answer: Answer) -> Ended:
        raise ZeroDivisionError(answer.verdict.kind)

    with pytest.raises(ZeroDivisionError):
        await calling.calls.call(work, calling.ledger(work), "update", send, shows)
    assert not work.in_flight
    assert calling.flow.snapshot().in_flight == 0


@in_virtual_time
@pytest.mark.parametrize(
    ("verdict", "halts"),
    [(Verdict(Kind.RETRY, status), True) for status in (503, 499, 409, 408)]
    + [(verdict, False) for verdict in (OK, NOT_FOUND, REJECTED)],
    ids=lambda value: str(value.status) if isinstance(value, Verdict) else "",
)
async def test_only_failures_of_the_service_make_an_outage(verdict: Verdict, halts: bool) -> None:  # noqa: FBT001 -- what is expected
    calling = Calling(*[verdict] * 3)
    for number in range(4):  # the fifth in a row is an outage
        end(calling.flow, FAILED, completion_id=f"other-{number}")
    await calling.call(work_on(CLAIM))
    assert (calling.flow.snapshot().halt_reason == "outage") is halts


@in_virtual_time
@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict(Kind.RETRY, transport=True), "outage"),
        (Verdict(Kind.RETRY, 503, envelope=True), "outage"),
        (Verdict(Kind.RETRY, 200, foreign=True), "foreign_answers"),
        (Verdict(Kind.RETRY, 418), "refused"),
        (Verdict(Kind.RETRY, 418, envelope=True), "outage"),
        (Verdict(Kind.HALTED, 403, halt=Halt.FORBIDDEN), "forbidden"),
        (Verdict(Kind.HALTED, 503, halt=Halt.QUOTA), "quota"),
        (Verdict(Kind.HALTED, 404, halt=Halt.WRONG_URL), "wrong_url"),
        (Verdict(Kind.RETRY, 503, delay_seconds=90_000.0), "quota"),  # who asks to wait for more than a day
    ],
    ids=lambda value: "" if isinstance(value, str) else f"{value.kind} {value.status}",
)
async def test_a_halt_takes_its_reason_from_the_failures(verdict: Verdict, reason: str) -> None:
    calling = Calling(*[verdict] * 15)
    for number in range(5):
        await calling.call(_work_on(f"chatcmpl-{number}"))
    assert calling.flow.snapshot().halt_reason == reason


@in_virtual_time
async def test_an_unclear_404_is_about_the_url_until_such_a_call_has_worked() -> None:
    unclear = Verdict(Kind.HALTED, 404, halt=Halt.WRONG_URL, about="unclear")
    calling, work = Calling(unclear, unclear, unclear), work_on(CLAIM)
    others_get_through(calling.flow, "get")  # which may go another way
    assert (await calling.call(work)).verdict == unclear
    assert _failures(work) == (1, 0)
    others_get_through(calling.flow, "update")
    assert (await calling.call(work)).verdict.kind is Kind.NOT_FOUND
    assert _failures(work) == (1, 0)


@in_virtual_time
async def test_a_completion_throttled_alone_goes_back_for_longer_each_time() -> None:
    calling, work = Calling(*[throttled(1.0)] * 9), work_on(CLAIM)
    calling.client.takes_seconds = 0.2
    with running(*[_others(calling) for _ in range(20)]):
        await asyncio.sleep(10.0)
        with pytest.raises(GiveBack) as first:
            await calling.call(work)
        assert len(calling.client.asked_at) == 4  # the first is not alone as yet
        closed_seconds = calling.flow.snapshot().closed_for_seconds
        with pytest.raises(GiveBack) as second:
            await calling.call(work)
    assert len(calling.client.asked_at) == 5  # as one that was throttled alone before, at once
    assert (first.value.deferral, second.value.deferral) == (Deferral.SNOOZED, Deferral.SNOOZED)
    assert 2.0 * 0.75 <= first.value.delay_seconds <= 2.0 * 1.25
    assert 4.0 * 0.75 <= second.value.delay_seconds <= 4.0 * 1.25
    assert (_failures(work), work.trials[1].throttles, closed_seconds) == (
        (0, 0),
        4,
        0.0,
    )  # others do not wait for it


@in_virtual_time
async def test_a_completion_throttled_like_all_others_waits_in_the_worker() -> None:
    calling, work = Calling(*[throttled(0.1)] * 4, OK), work_on(CLAIM)
    assert (await calling.call(work)).verdict.kind is Kind.OK
    assert work.trials[1].throttles == 0


async def _others(calling: Calling) -> None:
    while True:
        permit = await calling.flow.admit("other", "update")
        await asyncio.sleep(0.05)
        permit.end(SUCCEEDED)
