"""Whose fault a failure is: the record of a change, and which of its failures count."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.engine.parts import Calling, claim_of, others_get_through, work_on
from tests.virtual import in_virtual_time
from worker.engine.blame import Blame
from worker.engine.trials import Trials, trials_of

A, B = '{"grade":"A"}', '{"topic":"b"}'


class Case:
    """A claim's record, with a flow in which others may get through. The store's clock begins at 1000."""

    def __init__(self, *trials: Trials, ages: list[float] | None = None, **rules: Any) -> None:
        self.calling = Calling(**rules)
        texts = [A, B][: max(1, len(trials), len(ages or []))]
        self.work = work_on(claim_of(*texts, trials=trials or None, ages=ages))
        self.blame: Blame = self.calling.blame(self.work)

    def failed(self, *, envelope: bool = True, is_probe: bool = False) -> None:
        self.blame.failed("update", envelope=envelope, is_probe=is_probe)

    @property
    def trials(self) -> Trials:
        return self.work.trials[1]

    @property
    def kept(self) -> list[Trials]:
        """The records for the store."""
        records = self.blame.records([1, 2])
        return [trials_of(msgspec.structs.replace(self.work.claim.changes[0], trials=text)) for _, text in records]


def test_a_record_is_kept_as_text_and_comes_back_as_it_was() -> None:
    trials = Trials(1, 2, 3.5, 4.5, 5, 6.5, 7.5, 8, 9, 10.5)
    (change,) = claim_of(A, trials=[trials]).changes
    assert trials_of(change) == trials
    assert trials.text() == "[1,2,3.5,4.5,5,6.5,7.5,8,9,10.5]"


@pytest.mark.parametrize("text", [None, "", "{}", "7", '["a"]'])
def test_an_unreadable_record_counts_as_empty(text: str | None) -> None:
    (change,) = claim_of(A).changes
    assert trials_of(msgspec.structs.replace(change, trials=text)) == Trials()


@in_virtual_time
async def test_a_change_without_failures_keeps_no_record() -> None:
    case = Case()
    assert (case.blame.attempts, case.blame.failures, case.blame.is_guilty) == (0, 0, False)
    assert not case.blame.was_not_persisted
    assert not case.blame.was_throttled
    case.blame.passed()
    assert case.blame.records([1]) == []
    assert not case.work.has_trials  # nearly all works have no record, and pay nothing


@in_virtual_time
async def test_a_first_failure_is_kept_with_its_time_and_counts_nothing() -> None:
    case = Case()
    await asyncio.sleep(7.0)
    others_get_through(case.calling.flow)
    await asyncio.sleep(1.0)
    case.failed()
    assert case.kept == [Trials(failures=1, first_failed_at=1_008.0, failed_at=1_008.0)]
    assert not case.blame.is_guilty


@in_virtual_time
async def test_a_failure_counts_after_others_got_through_since_the_previous_one() -> None:
    case = Case()
    for others in (False, True, False, True):
        await asyncio.sleep(1.0)
        if others:
            others_get_through(case.calling.flow)
        await asyncio.sleep(1.0)
        case.failed()
    assert (case.trials.failures, case.trials.counted) == (4, 2)
    assert (case.trials.first_failed_at, case.trials.failed_at) == (1_002.0, 1_008.0)
    assert (case.blame.attempts, case.blame.failures, case.blame.is_guilty) == (2, 4, True)


@in_virtual_time
async def test_failures_of_an_earlier_claim_count_by_the_stores_clock() -> None:
    case = Case(Trials(failures=1, first_failed_at=990.0, failed_at=1_004.0))
    await asyncio.sleep(3.0)
    others_get_through(case.calling.flow)  # at 1003, before the failure that is known
    case.failed()
    assert case.trials.counted == 0
    case = Case(Trials(failures=1, first_failed_at=990.0, failed_at=1_002.0))
    others_get_through(case.calling.flow)
    await asyncio.sleep(3.0)
    others_get_through(case.calling.flow)
    case.failed()
    assert case.trials.counted == 1


@in_virtual_time
async def test_a_probe_counts_nothing() -> None:
    case = Case(Trials(failures=1, failed_at=999.0))
    others_get_through(case.calling.flow)
    case.failed(is_probe=True)
    assert (case.trials.failures, case.trials.counted) == (2, 0)


@in_virtual_time
@pytest.mark.parametrize("envelope", [True, False], ids=["the service's own words", "anything else"])
async def test_successes_at_other_workers_count_only_against_errors_in_the_services_format(envelope: bool) -> None:  # noqa: FBT001 -- what differs
    case = Case(Trials(failures=1, failed_at=999.0))
    await asyncio.sleep(1.0)
    case.calling.flow.others_succeeded("update", 0.5)
    case.failed(envelope=envelope)
    assert case.trials.counted == int(envelope)


@in_virtual_time
async def test_successes_of_another_kind_of_call_do_not_count() -> None:
    case = Case(Trials(failures=1, failed_at=999.0))
    others_get_through(case.calling.flow, "get")
    case.failed()
    assert case.trials.counted == 0


@in_virtual_time
async def test_attempts_are_those_of_the_change_that_failed_most() -> None:
    case = Case(Trials(failures=9, counted=2), Trials(failures=3, counted=3))
    assert (case.blame.attempts, case.blame.failures) == (3, 9)


@in_virtual_time
async def test_each_change_is_given_up_by_its_own_failures_and_time() -> None:
    often = Trials(counted=8, first_failed_at=400.0)
    case = Case(often, Trials(counted=7, first_failed_at=1.0))
    assert case.blame.exhausted([1, 2]) == [1]
    case = Case(msgspec.structs.replace(often, first_failed_at=400.1), often)
    assert case.blame.exhausted([1, 2]) == [2]
    assert case.blame.exhausted([1]) == []
    await asyncio.sleep(0.2)
    assert case.blame.exhausted([1, 2]) == [1, 2]


@in_virtual_time
async def test_the_grace_of_a_missing_completion_runs_from_the_later_of_enqueue_and_first_404() -> None:
    case = Case(ages=[2_000.0, 0.0])
    assert case.blame.absent([1, 2], "update", certain=True) == ([], 900.0)
    assert case.kept == [Trials(absences=1, first_absent_at=1_000.0)] * 2
    await asyncio.sleep(899.0)
    assert case.blame.absent([1, 2], "update", certain=True) == ([], 1.0)
    assert case.blame.absent_seconds() == 899.0
    await asyncio.sleep(1.0)
    assert case.blame.absent([1, 2], "update", certain=True) == ([1, 2], None)


@in_virtual_time
async def test_a_change_that_came_later_has_its_own_grace() -> None:
    case = Case(*[Trials(absences=5, first_absent_at=99.0)] * 2, ages=[2_000.0, 10.0])
    assert case.blame.absent([1, 2], "update", certain=True) == ([1], 890.0)


@in_virtual_time
async def test_a_completion_is_missing_after_three_404s_and_no_fewer() -> None:
    case = Case(ages=[2_000.0], not_found_grace_seconds=0.0)
    assert [case.blame.absent([1], "update", certain=True) for _ in range(3)] == [([], 0.0), ([], 0.0), ([1], None)]


@in_virtual_time
async def test_a_rejection_is_the_changes_fault_if_another_update_got_through_since_the_previous_one() -> None:
    case = Case()
    others_get_through(case.calling.flow)
    await asyncio.sleep(1.0)
    assert case.blame.rejected([1]) == []
    assert case.kept == [Trials(failures=1, rejected_at=1_001.0)]
    await asyncio.sleep(1.0)
    others_get_through(case.calling.flow, "get")
    assert case.blame.rejected([1]) == []
    await asyncio.sleep(1.0)
    others_get_through(case.calling.flow)
    assert case.blame.rejected([1]) == [1]


@in_virtual_time
async def test_a_rejection_is_the_changes_fault_if_an_update_got_through_at_another_worker_since() -> None:
    case = Case(Trials(rejected_at=999.0))
    case.calling.flow.others_succeeded("update", 0.5)
    assert case.blame.rejected([1]) == [1]


@in_virtual_time
async def test_a_success_at_another_worker_before_the_last_rejection_does_not_count() -> None:
    case = Case()
    case.blame.rejected([1])
    await asyncio.sleep(2.0)
    case.blame.rejected([1])
    case.calling.flow.others_succeeded("update", 1.0)  # between the two, and heard of only now
    await asyncio.sleep(1.0)
    assert case.blame.rejected([1]) == []


@in_virtual_time
async def test_changes_that_did_not_persist_are_returned_from_the_second_time_on() -> None:
    case = Case(Trials(), Trials(unpersisted=1))
    assert case.blame.was_not_persisted
    assert case.blame.not_persisted([1, 2]) == [2]
    assert case.blame.not_persisted([1, 2]) == [1, 2]
    assert [each.unpersisted for each in case.kept] == [2, 3]


@in_virtual_time
async def test_an_unclear_absence_counts_after_others_got_through() -> None:
    case = Case(Trials(absences=5, first_absent_at=99.0), ages=[2_000.0])
    await asyncio.sleep(1.0)
    assert case.blame.absent([1], "get", certain=False) == ([], None)
    others_get_through(case.calling.flow, "update")
    assert case.blame.absent([1], "get", certain=False) == ([], None)
    others_get_through(case.calling.flow, "get")
    assert case.blame.absent([1], "get", certain=False) == ([1], None)


@in_virtual_time
async def test_a_throttle_counts_after_others_got_through_since_the_previous_one() -> None:
    case = Case(Trials(throttles=2, throttled_at=999.0), Trials())
    assert case.blame.was_throttled
    assert case.blame.throttled("update") == 2
    await asyncio.sleep(1.0)
    others_get_through(case.calling.flow, "get")
    assert case.blame.throttled("update") == 2
    await asyncio.sleep(1.0)
    others_get_through(case.calling.flow, "update")
    assert case.blame.throttled("update") == 3
    assert [(each.throttles, each.throttled_at) for each in case.kept] == [(3, 1_002.0), (1, 1_002.0)]


@in_virtual_time
async def test_throttles_are_forgotten_when_a_request_passes() -> None:
    case = Case(Trials(throttles=2, throttled_at=999.0), Trials())
    case.blame.passed()
    assert not case.blame.was_throttled
    assert case.kept == [Trials()]


@in_virtual_time
async def test_only_changed_records_are_kept() -> None:
    case = Case(Trials(failures=1), Trials(failures=1))
    case.blame.absent([2], "update", certain=True)
    assert [number for number, _ in case.blame.records([1, 2])] == [2]
    assert case.blame.records([1]) == []
