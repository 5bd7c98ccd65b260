"""One claim on its way: its requests, its next due time, and the outcome of each of its changes."""

import asyncio

import msgspec
import pytest

from tests.engine.parts import (
    ID,
    NOT_FOUND,
    OK,
    REJECTED,
    REJECTED_FOR_CERTAIN,
    Calling,
    claim_of,
    end,
    events,
    failed,
    halt,
    others_get_through,
    throttled,
    work_on,
)
from tests.virtual import in_virtual_time
from worker.api import Answer, Halt, Kind, RetryPolicy, Verdict
from worker.engine.outcome import Deferral, Outcome
from worker.engine.trials import Trials
from worker.engine.work import Interruption, Work
from worker.flow import ABSENT, FAULT, METADATA_HIDDEN, SERVICE_MERGES, End, Ended, GateState
from worker.flow import REJECTED as REFUSED_ALIKE

A, B, C = '{"grade":"A"}', '{"topic":"b"}', '{"rater":"c"}'


def _numbers(outcome: Outcome) -> tuple[list[int], list[int], list[int], list[int]]:
    """The numbers of the changes by outcome: applied, unchanged, dead, deferred."""
    dead = [change for change, _ in outcome.dead]
    groups = (outcome.applied, outcome.unchanged, dead, outcome.deferred)
    applied, unchanged, died, deferred = ([change.number for change in group] for group in groups)
    return applied, unchanged, died, deferred


@in_virtual_time
async def test_a_replace_is_one_request_with_any_stored_metadata() -> None:
    calling = Calling(stored={"old": "x"})
    outcome = await calling.apply(A, B)
    assert _numbers(outcome) == ([1, 2], [], [], [])
    assert calling.client.sent == [{"topic": "b"}]
    assert len(calling.client.asked_at) == 1


@in_virtual_time
async def test_a_merge_reads_first_and_sends_nothing_if_the_metadata_is_there() -> None:
    calling = Calling(stored={"grade": "A"})
    outcome = await calling.apply(A, mode="merge")
    assert _numbers(outcome) == ([], [1], [], [])
    assert (calling.client.sent, len(calling.client.asked_at)) == ([], 1)


@in_virtual_time
async def test_a_throttled_change_spends_no_attempt() -> None:
    outcome = await Calling(throttled(60.0)).apply(A, trials=[Trials(failures=9, counted=7)])
    assert (outcome.deferral, outcome.attempts) == (Deferral.SNOOZED, 7)
    assert outcome.trials == [(1, Trials(failures=9, counted=7, throttled_at=1_000.0).text())]
    assert 62.0 <= outcome.delay_seconds < 63.0  # after those that were not throttled


@in_virtual_time
@pytest.mark.parametrize("delay_seconds", [30.0, 3_000.0])
async def test_after_a_failure_a_change_is_due_no_sooner_than_the_service_asked(delay_seconds: float) -> None:
    outcome = await Calling(failed(delay_seconds)).apply(A)
    assert (outcome.deferral, outcome.delay_seconds) == (Deferral.RETRY, delay_seconds)


@in_virtual_time
async def test_after_a_failure_without_a_delay_a_change_is_due_after_a_backoff() -> None:
    outcome = await Calling(*[failed()] * 3).apply(A)
    assert outcome.deferral is Deferral.RETRY
    assert 0.0 <= outcome.delay_seconds <= 0.05  # the cap of this policy


@in_virtual_time
async def test_the_backoff_grows_with_all_failures_of_a_change_and_stays_short_while_none_counts() -> None:
    delays = []
    for failures, counted in ((20, 0), (20, 1)):
        calling = Calling(*[failed()] * 3)
        calling.applier.policy = RetryPolicy(base_seconds=0.5, cap_seconds=600.0)
        delays += [(await calling.apply(A, trials=[Trials(failures, counted)])).delay_seconds for _ in range(40)]
    assert max(delays[:40]) == 10.0
    assert max(delays[40:]) > 100.0


def _exhausted(*, counted: int = 8, first_failed_at: float = 400.0, failed_at: float = 999.0) -> Trials:
    """The record of a change that is given up by these rules at its next failure."""
    return Trials(failures=30, counted=counted, first_failed_at=first_failed_at, failed_at=failed_at)


@in_virtual_time
@pytest.mark.parametrize(
    ("met", "dies"),
    [
        (_exhausted(), True),
        (_exhausted(counted=7), True),  # the eighth comes now
        (_exhausted(counted=6), False),
        (_exhausted(first_failed_at=400.1), False),  # eight, but not for ten minutes yet
    ],
    ids=["often and for long", "for the eighth time", "too seldom", "for too short a time"],
)
async def test_a_change_dies_after_many_failures_over_hours_while_others_got_through(met: Trials, dies: bool) -> None:  # noqa: FBT001 -- what is expected
    calling = Calling(_DENIED)
    others_get_through(calling.flow)
    outcome = await calling.apply(A, B, trials=[met, Trials()])
    assert _numbers(outcome) == ([], [], [1], [2]) if dies else ([], [], [], [1, 2])
    assert [death.reason for _, death in outcome.dead] == ["attempts_exhausted"] * dies
    if dies:
        ((_, death),) = outcome.dead
        assert (death.status, death.attempts) == (403, max(8, met.counted + 1))
        assert death.error == "refused alone: HTTP 403 Forbidden, while 1 others got through"


@in_virtual_time
@pytest.mark.parametrize("elsewhere", [False, True], ids=["no one gets through", "only reads get through"])
async def test_no_number_of_failures_kills_a_change_while_none_gets_through(elsewhere: bool) -> None:  # noqa: FBT001 -- what differs
    calling = Calling(_DENIED)
    if elsewhere:
        others_get_through(calling.flow, "get")
    outcome = await calling.apply(A, trials=[_exhausted(counted=7)])
    assert (_numbers(outcome), outcome.attempts) == (([], [], [], [1]), 7)


_DENIED = Verdict(Kind.HALTED, 403, error="HTTP 403 Forbidden", halt=Halt.FORBIDDEN)


@in_virtual_time
async def test_a_missing_completion_is_asked_for_again_within_its_grace_and_no_later() -> None:
    outcome = await Calling(NOT_FOUND).apply(A, ages=[890.0], trials=[_absent(since=110.0)])
    assert outcome.deferral is Deferral.RETRY
    assert outcome.delay_seconds == pytest.approx(10.0)


def _absent(*, since: float, times: int = 9) -> Trials:
    """The record of a change whose completion was first missing at that time; it is 1000 now."""
    return Trials(absences=times, first_absent_at=since)


@in_virtual_time
@pytest.mark.parametrize(("missing", "least", "most"), [(1.0, 1.0, 1.25), (20.0, 7.5, 12.5), (400.0, 45.0, 75.0)])
async def test_a_missing_completion_is_asked_for_less_often_the_longer_it_is_missing(
    missing: float, least: float, most: float
) -> None:
    outcome = await Calling(NOT_FOUND).apply(A, ages=[500.0], trials=[_absent(since=1_000.0 - missing)])
    assert least <= outcome.delay_seconds <= most
    assert outcome.absent_seconds is not None


@in_virtual_time
async def test_a_change_that_is_old_when_its_completion_is_first_missing_has_all_its_grace_before_it() -> None:
    outcome = await Calling(NOT_FOUND).apply(A, ages=[86_400.0])
    assert _numbers(outcome) == ([], [], [], [1])
    assert outcome.trials == [(1, Trials(absences=1, first_absent_at=1_000.0).text())]
    assert 1.0 <= outcome.delay_seconds <= 1.25


@in_virtual_time
@pytest.mark.parametrize(("times", "dies"), [(1, False), (2, True)])
async def test_no_completion_is_given_up_before_the_third_404(times: int, dies: bool) -> None:  # noqa: FBT001 -- what is expected
    outcome = await Calling(NOT_FOUND).apply(A, ages=[901.0], trials=[_absent(since=99.0, times=times)])
    assert _numbers(outcome) == ([], [], [1], []) if dies else ([], [], [], [1])
    assert dies or outcome.delay_seconds == 1.0


@in_virtual_time
async def test_of_a_missing_completion_only_the_changes_die_that_have_waited_long_enough() -> None:
    outcome = await Calling(NOT_FOUND).apply(A, B, ages=[901.0, 30.0], trials=[_absent(since=99.0)] * 2)
    assert _numbers(outcome) == ([], [], [1], [2])
    assert [death.reason for _, death in outcome.dead] == ["not_found"]


@in_virtual_time
async def test_no_completion_is_given_up_while_twenty_in_a_row_are_missing() -> None:
    calling = Calling(NOT_FOUND)
    _all_meet(calling, Ended(End.ABSENT))
    outcome = await calling.apply(A, ages=[901.0], trials=[_absent(since=99.0)])
    assert (_numbers(outcome), outcome.delay_seconds) == (([], [], [], [1]), 60.0)
    assert calling.flow.alike()[0].reason == ABSENT  # type: ignore[index]  # it is not None, or this fails


def _all_meet(calling: Calling, ended: Ended) -> None:
    for number in range(20):
        end(calling.flow, ended, completion_id=f"other-{number}")


@in_virtual_time
async def test_a_certain_rejection_kills_at_once() -> None:
    outcome = await Calling(REJECTED_FOR_CERTAIN).apply(A)
    assert _numbers(outcome) == ([], [], [1], [])
    assert [(death.reason, death.status) for _, death in outcome.dead] == [("rejected", 400)]


@in_virtual_time
async def test_an_uncertain_rejection_is_held_until_another_completion_gets_through() -> None:
    calling = Calling(REJECTED, REJECTED, REJECTED)
    first = await calling.apply(A)
    assert (_numbers(first), first.deferral) == (([], [], [], [1]), Deferral.RETRY)
    assert first.trials == [(1, Trials(failures=1, rejected_at=1_000.0).text())]
    await asyncio.sleep(1.0)
    others_get_through(calling.flow, "get")
    met = [Trials(failures=1, rejected_at=999.5)]  # half a second before this claim
    assert _numbers(await calling.apply(A, trials=met)) == ([], [], [], [1])
    others_get_through(calling.flow)
    outcome = await calling.apply(A, trials=met)
    assert _numbers(outcome) == ([], [], [1], [])
    assert [(death.reason, death.status, death.error) for _, death in outcome.dead] == [
        ("rejected", 400, "HTTP 400 Bad Request")
    ]


@in_virtual_time
@pytest.mark.parametrize("verdict", [REJECTED, REJECTED_FOR_CERTAIN], ids=["perhaps", "for certain"])
async def test_no_change_dies_while_twenty_in_a_row_are_rejected_alike(verdict: Verdict) -> None:
    calling = Calling(verdict)
    _all_meet(calling, Ended(End.REJECTED, reason="400 None"))
    assert _numbers(await calling.apply(A, trials=[Trials(rejected_at=1.0)])) == ([], [], [], [1])
    assert calling.flow.alike()[0].reason == REFUSED_ALIKE  # type: ignore[index]  # it is not None, or this fails


@in_virtual_time
async def test_a_held_change_is_tried_again_within_a_minute() -> None:
    calling = Calling(*[REJECTED] * 40)
    calling.applier.policy = RetryPolicy(base_seconds=0.5, cap_seconds=600.0)
    delays = [(await calling.apply(A, trials=[Trials(failures=20)])).delay_seconds for _ in range(40)]
    assert max(delays) == 60.0


@in_virtual_time
@pytest.mark.parametrize("verdict", [REJECTED, REJECTED_FOR_CERTAIN], ids=["perhaps", "for certain"])
async def test_a_rejected_change_takes_no_other_with_it(verdict: Verdict) -> None:
    calling = Calling(verdict, OK, verdict, OK)  # all together, then one by one
    outcome = await calling.apply(A, B, C)
    assert _numbers(outcome) == ([1, 3], [], [2], [])
    ((_, death),) = outcome.dead
    assert (death.reason, death.status, death.error) == ("rejected", 400, "HTTP 400 Bad Request")


@in_virtual_time
async def test_a_rejected_change_is_held_if_no_later_change_of_its_completion_is_accepted() -> None:
    calling = Calling(REJECTED, OK, REJECTED, REJECTED)
    outcome = await calling.apply(A, B, C)
    assert _numbers(outcome) == ([1], [], [], [2, 3])
    assert (outcome.deferral, outcome.delay_seconds > 0.0) == (Deferral.RETRY, True)


@in_virtual_time
async def test_one_by_one_stops_at_a_failure_and_keeps_what_was_decided() -> None:
    calling = Calling(REJECTED, OK, failed(60.0))
    outcome = await calling.apply(A, B, C)
    assert _numbers(outcome) == ([1], [], [], [2, 3])
    assert (outcome.deferral, outcome.delay_seconds) == (Deferral.RETRY, 60.0)


@in_virtual_time
async def test_one_by_one_each_merge_builds_on_the_one_before() -> None:
    calling = Calling(OK, REJECTED, OK, OK, stored={"old": "x"})
    outcome = await calling.apply(A, B, mode="merge")
    assert _numbers(outcome) == ([1, 2], [], [], [])
    assert calling.client.sent[1:] == [{"old": "x", "grade": "A"}, {"old": "x", "grade": "A", "topic": "b"}]


@in_virtual_time
async def test_a_value_that_did_not_persist_is_tried_again_after_the_read_lag() -> None:
    outcome = await Calling(Answer(OK, {"grade": "B"})).apply(A)
    assert _numbers(outcome) == ([], [], [], [1])
    assert outcome.error is not None
    assert "grade" in outcome.error
    assert (outcome.deferral, outcome.trials) == (Deferral.RETRY, [(1, Trials(unpersisted=1).text())])
    assert 60.0 <= outcome.delay_seconds <= 66.0


@in_virtual_time
async def test_the_second_try_uses_a_fresh_connection_and_kills_the_change_of_the_wrong_value() -> None:
    calling = Calling(Answer(OK, {"grade": "A", "topic": "wrong"}))
    outcome = await calling.apply(A, '{"grade":"A","topic":"b"}', trials=[Trials(unpersisted=1)] * 2, mode="replace")
    assert calling.client.fresh == [True]
    assert _numbers(outcome) == ([1], [], [2], [])
    ((_, death),) = outcome.dead
    assert (death.reason, death.status) == ("not_persisted", 200)
    assert death.error is not None
    assert "topic" in death.error


@in_virtual_time
async def test_a_change_that_joins_an_unpersisted_one_gets_its_second_try() -> None:
    calling = Calling(Answer(OK, {"grade": "B"}))
    outcome = await calling.apply(A, A, trials=[Trials(unpersisted=1), Trials()])
    assert _numbers(outcome) == ([], [], [], [1, 2])
    assert calling.client.fresh == [True]


@in_virtual_time
async def test_under_semantics_unknown_leftovers_decide_nothing() -> None:
    calling = Calling(*[Answer(OK, {"grade": "A", "old": "x"})] * 3)
    outcome = await calling.apply(A)
    assert (_numbers(outcome), outcome.deferral) == (([], [], [], [1]), Deferral.RETRY)
    assert outcome.error is not None
    assert "METASYNC_SEMANTICS" in outcome.error
    assert not outcome.leftover
    assert outcome.trials == [(1, Trials(failures=1).text())]  # so that it is tried less and less often


@in_virtual_time
async def test_under_semantics_merge_leftovers_of_a_replace_are_reported() -> None:
    outcome = await Calling(Answer(OK, {"grade": "A", "old": "x"}), semantics="merge").apply(A)
    assert (_numbers(outcome)[0], outcome.leftover_keys, outcome.leftover) == ([1], ("old",), 1)
    assert outcome.confirmed == {"grade": "A", "old": "x"}


@in_virtual_time
async def test_under_semantics_replace_leftovers_did_not_persist() -> None:
    left = Answer(OK, {"grade": "A", "old": "x"})
    calling = Calling(left, left, semantics="replace")
    assert _numbers(await calling.apply(A)) == ([], [], [], [1])
    outcome = await calling.apply(A, trials=[Trials(unpersisted=1)])
    assert [death.reason for _, death in outcome.dead] == ["not_persisted"]


@in_virtual_time
async def test_a_removed_key_that_the_service_keeps_is_not_persisted() -> None:
    calling = Calling(OK, Answer(OK, {"grade": "A", "old": "x"}), stored={"grade": "A", "old": "x"})
    outcome = await calling.apply('{"old":null}', mode="merge")
    assert _numbers(outcome) == ([], [], [], [1])
    assert outcome.error is not None
    assert 'set it to "" instead' in outcome.error


@in_virtual_time
async def test_an_answer_with_the_wanted_metadata_is_kept_as_confirmed() -> None:
    outcome = await Calling().apply(A)
    assert (outcome.confirmed, outcome.verified) == ({"grade": "A"}, True)
    unseen = await Calling(Answer(OK, None)).apply(A)
    assert (unseen.confirmed, unseen.verified) == ({"grade": "A"}, False)


@in_virtual_time
@pytest.mark.parametrize(
    "read", [Answer(OK, None), Answer(OK, {"n": "1"}, whole=False)], ids=["no metadata", "values that are no strings"]
)
async def test_a_merge_sends_nothing_if_the_read_does_not_show_all_metadata(read: Answer) -> None:
    calling = Calling(read)
    outcome = await calling.apply(A, mode="merge")
    assert (_numbers(outcome), outcome.deferral) == (([], [], [], [1]), Deferral.RETRY)
    assert calling.client.sent == []


@in_virtual_time
@pytest.mark.parametrize(
    "read", [Answer(OK, None), Answer(OK, {"n": "1"}, whole=False)], ids=["no metadata", "values that are no strings"]
)
async def test_a_merge_dies_as_unreadable_while_other_reads_show_their_metadata(read: Answer) -> None:
    calling = Calling(read)
    await asyncio.sleep(1.0)
    others_get_through(calling.flow, "get")
    outcome = await calling.apply(A, mode="merge", trials=[Trials(rejected_at=999.5)])
    assert [death.reason for _, death in outcome.dead] == ["unreadable"]
    assert calling.client.sent == []


@in_virtual_time
async def test_three_replacements_with_leftovers_halt() -> None:
    calling = Calling(*[Answer(OK, {"grade": "A", "old": "x"})] * 3)
    for number in range(3):
        assert calling.flow.snapshot().gate is GateState.OPEN
        claim = msgspec.structs.replace(claim_of(A), completion_id=f"chatcmpl-{number}")
        await calling.applier.apply(work_on(claim))
    assert calling.flow.snapshot().halt_reason == SERVICE_MERGES


@in_virtual_time
async def test_three_reads_that_hide_the_metadata_halt() -> None:
    calling = Calling(*[Answer(OK, None)] * 3)
    for number in range(3):
        assert calling.flow.snapshot().gate is GateState.OPEN
        claim = msgspec.structs.replace(claim_of(A, mode="merge"), completion_id=f"chatcmpl-{number}")
        await calling.applier.apply(work_on(claim))
    assert calling.flow.snapshot().halt_reason == METADATA_HIDDEN


@in_virtual_time
@pytest.mark.parametrize(("interruption", "delay_seconds"), [(Interruption.RELEASED, 0.0), (Interruption.CUT_OFF, 5.0)])
async def test_an_interrupted_claim_is_released_without_failure(
    interruption: Interruption, delay_seconds: float
) -> None:
    outcomes, work, task = await _under_way()
    work.interrupt(interruption)
    await task
    (outcome,) = outcomes
    assert (outcome.deferral, outcome.delay_seconds, outcome.attempts) == (Deferral.RELEASED, delay_seconds, 2)
    assert outcome.trials == []


@in_virtual_time
async def test_a_cancellation_of_the_worker_gives_no_outcome() -> None:
    outcomes, _, task = await _under_way()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not outcomes


async def _under_way() -> tuple[list[Outcome], Work, "asyncio.Task[None]"]:
    """A claim whose request takes a minute, one second after its start."""
    calling, work, outcomes = Calling(), work_on(claim_of(A, trials=[Trials(failures=2, counted=2)])), list[Outcome]()
    calling.client.takes_seconds = 60.0

    async def apply() -> None:
        outcomes.append(await calling.applier.apply(work))

    task = asyncio.create_task(apply())
    work.task = task
    await asyncio.sleep(1.0)
    return outcomes, work, task


@in_virtual_time
@pytest.mark.parametrize("others", [True, False], ids=["others pass", "nothing passes"])
async def test_a_bug_in_one_claim_is_logged_and_counts_if_others_get_through(others: bool) -> None:  # noqa: FBT001 -- what differs
    calling = Calling(ZeroDivisionError())
    await asyncio.sleep(1.0)
    if others:
        others_get_through(calling.flow)
    outcome = await calling.apply(A, trials=[Trials(failures=1, failed_at=999.5)])
    assert (outcome.deferral, outcome.attempts) == (Deferral.RETRY, 1 if others else 0)
    assert outcome.error == "internal error: ZeroDivisionError"
    assert [event["completion_id"] for event in events(calling.logger, "change.crashed")] == ["chatcmpl-1"]


@in_virtual_time
async def test_a_bug_that_five_claims_in_a_row_meet_halts() -> None:
    calling = Calling(*[ZeroDivisionError()] * 5)
    for number in range(5):
        assert calling.flow.snapshot().gate is GateState.OPEN
        claim = msgspec.structs.replace(claim_of(A), completion_id=f"chatcmpl-{number}")
        await calling.applier.apply(work_on(claim))
    cause = calling.flow.snapshot().cause
    assert cause is not None
    assert (cause.reason, cause.error) == (FAULT, "internal error: ZeroDivisionError")


@in_virtual_time
async def test_a_probe_that_meets_a_bug_has_failed() -> None:
    calling, work = Calling(ZeroDivisionError()), work_on(claim_of(A))
    halt(calling.flow)
    assert calling.flow.take_probe(ID)
    work.is_probe = True
    await calling.applier.apply(work)
    calling.flow.probe_ended()
    assert calling.flow.next_probe_in_seconds() == 5.0


@in_virtual_time
@pytest.mark.parametrize("text", ["[]", '{"grade":1}', "{", '{"grade":null}'])
async def test_an_invalid_stored_change_dies_and_costs_no_request(text: str) -> None:
    calling = Calling()
    outcome = await calling.apply(text)
    assert [death.reason for _, death in outcome.dead] == ["invalid"]
    assert not calling.client.asked_at
