"""The ledger of one claim: each change decided once."""

import asyncio

import pytest

from tests.engine.parts import ID, NOT_FOUND, Calling, claim_of, now, work_on
from tests.virtual import in_virtual_time
from worker.api import Answer, Kind, Verdict
from worker.changes import InvalidChange, MetadataChange
from worker.engine.ledger import Ledger, decoded
from worker.engine.outcome import Deferral, Outcome
from worker.engine.trials import Trials
from worker.queue import Claim, Death, QueuedChange

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
async def test_attempts_are_the_counted_failures_of_all_claims() -> None:
    ledger = _ledger(claim_of(*TWO, trials=[Trials(failures=9, counted=3), Trials(failures=9, counted=5)]))
    ledger.die([1], "rejected")
    outcome = ledger.outcome(now())
    assert (outcome.attempts, outcome.dead[0][1].attempts) == (5, 5)


@in_virtual_time
async def test_only_new_failures_of_pending_changes_are_kept() -> None:
    work = work_on(claim_of(*TWO, trials=[Trials(failures=1), Trials(failures=2)]))
    blame = Calling().blame(work)
    ledger = Ledger(work, blame)
    assert ledger.outcome(now()).settlement().trials == []
    blame.absent([2], "update", certain=True)
    assert [number for number, _ in ledger.outcome(now()).settlement().trials] == [2]
    ledger.die([2], "not_found")
    assert ledger.outcome(now()).settlement().trials == []


@in_virtual_time
async def test_open_changes_are_deferred_with_the_delay() -> None:
    ledger = _ledger(claim_of(*TWO))
    ledger.applied([1])
    outcome = ledger.outcome(now(), deferral=Deferral.RETRY, delay_seconds=7.0)
    assert ([each.number for each in outcome.applied], [each.number for each in outcome.deferred]) == ([1], [2])
    assert (outcome.deferral, outcome.delay_seconds) == (Deferral.RETRY, 7.0)


@in_virtual_time
async def test_without_open_changes_nothing_is_deferred() -> None:
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
    ledger.answered(Answer(Verdict(Kind.RETRY, 503, "req-1", "later")), "get")
    ledger.answered(Answer(NOT_FOUND), "get")
    ledger.die([2], "not_found")
    ((change, death),) = ledger.outcome(now()).dead
    assert (change.number, death.reason, death.status, death.error) == (2, "not_found", 404, NOT_FOUND.error)


@in_virtual_time
async def test_a_claim_without_requests_is_given_back_whole_and_at_once() -> None:
    claim = claim_of(*TWO)
    ledger = _ledger(claim)
    assert ledger.operation == "update"
    assert ledger.outcome(now()) == Outcome(
        claim,
        deferred=list(claim.changes),
        deferral=Deferral.RELEASED,
        applied=[],
        unchanged=[],
        dead=[],
        superseded=[],
        keys=[],
        trials=[],
    )


@in_virtual_time
async def test_the_outcome_holds_answer_maps_keys_and_failures() -> None:
    claim = claim_of(*TWO)
    ledger = _ledger(claim)
    ledger.decode()
    ledger.before, ledger.metadata, ledger.confirmed = {"grade": "B"}, {"grade": "A"}, {"grade": "C"}
    ledger.leftover_keys, ledger.leftover, ledger.verified = ("old",), 3, False
    ledger.absent_seconds, ledger.second_look = 9.0, True
    ledger.answered(Answer(Verdict(Kind.OK, 200, "req-1", "odd"), duration_ms=12.3456), "get")
    await asyncio.sleep(0.0123456)
    assert ledger.operation == "get"
    assert ledger.outcome(now(), deferral=Deferral.RETRY, delay_seconds=7.0) == Outcome(
        claim,
        applied=[],
        unchanged=[],
        dead=[],
        superseded=[],
        deferred=list(claim.changes),
        deferral=Deferral.RETRY,
        delay_seconds=7.0,
        status=200,
        request_id="req-1",
        error="odd",
        duration_ms=12.3,
        keys=["grade", "topic"],
        before={"grade": "B"},
        metadata={"grade": "A"},
        leftover_keys=("old",),
        leftover=3,
        absent_seconds=9.0,
        second_look=True,
        confirmed={"grade": "C"},
        trials=[],
        verified=False,
        lag_ms=12.3,
    )


@in_virtual_time
async def test_decided_changes_leave_nothing_deferred() -> None:
    ledger = _ledger(claim_of(*TWO))
    ledger.absent_seconds, ledger.second_look = 9.0, True
    ledger.answered(Answer(Verdict(Kind.NOT_FOUND, 404, "req-2", "gone")), "update")
    ledger.unchanged([1])
    ledger.unchanged([2])
    outcome = ledger.outcome(now())
    assert [each.number for each in outcome.unchanged] == [1, 2]
    assert (outcome.deferred, outcome.absent_seconds, outcome.second_look) == ((), None, False)


@in_virtual_time
async def test_a_death_has_the_given_error_or_that_of_the_answer() -> None:
    ledger = _ledger(claim_of(*TWO))
    answer = Answer(Verdict(Kind.REJECTED, 400, "req-3", "bad"))
    ledger.answered(answer, "update")
    ledger.die([1], "rejected")
    ledger.die([2], "too_many_keys", error="seventeen", answer=answer)
    assert [death for _, death in ledger.outcome(now()).dead] == [
        Death(1, "rejected", 0, status=400, error="bad", request_id="req-3"),
        Death(2, "too_many_keys", 0, status=400, error="seventeen", request_id="req-3"),
    ]


NO_OBJECT = "what is stored as metadata is not a JSON object of strings"
NO_MODE = "what is stored as mode is none: 'both'"


@pytest.mark.parametrize(
    ("mode", "metadata", "complaint"),
    [("merge", "[1]", NO_OBJECT), ("both", TWO[0], NO_MODE)],
    ids=["metadata", "mode"],
)
@in_virtual_time
async def test_an_invalid_stored_change_dies_with_an_error_that_says_why(
    mode: str, metadata: str, complaint: str
) -> None:
    stored = QueuedChange(1, ID, None, mode, metadata, 1_000.0)
    with pytest.raises(InvalidChange) as raised:
        decoded(stored)
    assert str(raised.value) == complaint
    ledger = _ledger(Claim(ID, 1, (stored,), age_seconds=0.0))
    assert ledger.decode() == {}
    assert [death for _, death in ledger.outcome(now()).dead] == [Death(1, "invalid", 0, error=complaint)]


@pytest.mark.parametrize("change_id", ["line-1", "nan"])  # an older version took the second
def test_a_stored_change_decodes_to_the_change_that_was_put(change_id: str) -> None:
    stored = QueuedChange(1, ID, change_id, "merge", TWO[0], 1_000.0)
    assert decoded(stored) == MetadataChange(ID, {"grade": "A"}, "merge")
