"""The totals of a run are a view of the tallies."""

from tests.engine.parts import claim_of
from worker.engine.outcome import Deferral, Outcome
from worker.engine.tallies import Tallies
from worker.engine.totals import Totals
from worker.queue import Death

CLAIM = claim_of(*["{}"] * 5)
FIRST, *OTHERS = CLAIM.changes


def test_totals_show_what_the_tallies_count_and_when_they_count_it() -> None:
    tallies = Tallies()
    totals = Totals(tallies)
    assert (totals.changes, totals.applied, totals.unchanged, totals.dead) == (0, 0, 0, 0)
    tallies.recorded(
        [Outcome(CLAIM, applied=[FIRST], unchanged=OTHERS[:3], dead=[(OTHERS[3], Death(5, "rejected", 1))])]
    )
    assert (totals.changes, totals.applied, totals.unchanged, totals.dead) == (5, 1, 3, 1)
    tallies.recorded([Outcome(CLAIM, superseded=OTHERS)])
    assert (totals.changes, totals.superseded, tallies.latest[-1].superseded) == (9, 4, 4)
    tallies.stale += 2
    assert totals.stale == 2


def test_dead_letters_are_counted_by_reason_in_the_totals() -> None:
    tallies = Tallies()
    dead = [(change, Death(change.number, "rejected", 1)) for change in OTHERS]
    tallies.recorded([Outcome(CLAIM, dead=[(FIRST, Death(1, "not_found", 1)), *dead])])
    assert Totals(tallies).reasons == {"rejected": 4, "not_found": 1}


def test_deferred_changes_are_not_done_and_only_repeated_requests_are_retries() -> None:
    tallies = Tallies()
    totals = Totals(tallies)
    for deferral in Deferral:
        tallies.recorded([Outcome(CLAIM, deferred=CLAIM.changes, deferral=deferral)])
    tallies.requests_retried += 2
    assert (totals.changes, totals.retries) == (0, 2)


def test_reading_a_total_counts_nothing() -> None:
    tallies = Tallies()
    totals = Totals(tallies)
    assert (totals.applied, totals.reasons, totals.retries) == (0, {}, 0)
    assert not tallies.outcomes.total()
