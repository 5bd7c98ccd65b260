"""The ledger of one claim: each change decided once."""

import asyncio

import pytest

from tests.engine.parts import NOT_FOUND, Calling, claim_of, now, work_on
from tests.virtual import in_virtual_time
from worker.api import Answer
from worker.engine.ledger import Ledger
from worker.engine.outcome import Deferral
from worker.engine.trials import Trials
from worker.queue import Claim

TWO = ('{"grade":"A"}', '{"topic":"b"}')


def _ledger(claim: Claim) -> Ledger:
    work = work_on(claim)
    return Ledger(work, Calling().blame(work))


@in_virtual_time
async def test_the_lag_is_that_of_the_oldest_change() -> None:
    await asyncio.sleep(500.0)
    ledger = _ledger(claim_of(*TWO, ages=[100.0, 60.0]))
    await asyncio.sleep(10.0)
    assert ledger.outcome(now()).lag_ms == pytest.approx(110_000.0)


@in_virtual_time
async def test_attempts_are_the_failures_that_count_those_of_earlier_claims_among_them() -> None:
    ledger = _ledger(claim_of(*TWO, trials=[Trials(failures=9, counted=3), Trials(failures=9, counted=5)]))
    ledger.die([1], "rejected")
    outcome = ledger.outcome(now())
    assert (outcome.attempts, outcome.dead[0][1].attempts) == (5, 5)


@in_virtual_time
async def test_only_what_a_change_has_met_anew_is_kept_with_it_and_only_while_it_is_pending() -> None:
    work = work_on(claim_of(*TWO, trials=[Trials(failures=1), Trials(failures=2)]))
    blame = Calling().blame(work)
    ledger = Ledger(work, blame)
    assert ledger.outcome(now()).settlement().trials == []
    blame.absent([2], "update", certain=True)
    assert [number for number, _ in ledger.outcome(now()).settlement().trials] == [2]
    ledger.die([2], "not_found")
    assert ledger.outcome(now()).settlement().trials == []


@in_virtual_time
async def test_what_is_not_decided_is_deferred_and_keeps_its_delay() -> None:
    ledger = _ledger(claim_of(*TWO))
    ledger.applied([1])
    outcome = ledger.outcome(now(), deferral=Deferral.RETRY, delay_seconds=7.0)
    assert ([each.number for each in outcome.applied], [each.number for each in outcome.deferred]) == ([1], [2])
    assert (outcome.deferral, outcome.delay_seconds) == (Deferral.RETRY, 7.0)


@in_virtual_time
async def test_where_all_is_decided_nothing_is_deferred() -> None:
    ledger = _ledger(claim_of(*TWO))
    ledger.unchanged([1, 2])
    outcome = ledger.outcome(now(), deferral=Deferral.RETRY, delay_seconds=7.0)
    assert (outcome.deferral, outcome.delay_seconds, outcome.settlement().trials) == (None, 0.0, ())


@in_virtual_time
async def test_a_change_is_decided_once() -> None:
    ledger = _ledger(claim_of(*TWO))
    ledger.applied([1])
    with pytest.raises(KeyError):
        ledger.die([1], "rejected")


@in_virtual_time
async def test_a_death_carries_the_last_answer() -> None:
    ledger = _ledger(claim_of(*TWO))
    ledger.answered(Answer(NOT_FOUND), "get")
    ledger.die([2], "not_found")
    ((change, death),) = ledger.outcome(now()).dead
    assert (change.number, death.reason, death.status, death.error) == (2, "not_found", 404, NOT_FOUND.error)
