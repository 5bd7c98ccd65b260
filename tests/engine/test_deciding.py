"""What is decided about each change of a claim, in the words that are kept with it, and what is left for later."""

from typing import Any

import msgspec
import pytest

from tests.engine.parts import (
    ID,
    NOT_FOUND,
    OK,
    REJECTED,
    REJECTED_FOR_CERTAIN,
    Calling,
    Script,
    claim_of,
    end,
    failed,
    now,
    others_get_through,
    work_on,
)
from tests.virtual import in_virtual_time
from worker.api import Answer, Kind, RetryPolicy, Verdict
from worker.engine.outcome import Deferral, Outcome
from worker.engine.trials import Trials
from worker.flow import End, Ended, GateState

A, B, C = '{"grade":"A"}', '{"topic":"b"}', '{"rater":"c"}'
FULL = {f"key{number}": "old" for number in range(16)}
TOO_MANY = "with this change the completion would have more than 16 pairs"
NOT_AS_WANTED = "the service answered 200, but does not have it as wanted"


def decided(outcome: Outcome) -> dict[str, list[int]]:
    """Numbers of the changes by what became of them."""
    groups: dict[str, Any] = {
        "applied": outcome.applied,
        "unchanged": outcome.unchanged,
        "dead": [change for change, _ in outcome.dead],
        "deferred": outcome.deferred,
    }
    return {name: [change.number for change in group] for name, group in groups.items() if group}


def deaths(outcome: Outcome) -> list[tuple[int, str, str | None]]:
    return [(change.number, death.reason, death.error) for change, death in outcome.dead]


async def apply(calling: Calling, *metadata: str, confirmed: dict[str, str] | None = None, **claim: Any) -> Outcome:
    """What becomes of a merge of these; the service confirmed this map before, which a read may not show yet."""
    claimed = msgspec.structs.replace(claim_of(*metadata, mode="merge", **claim), confirmed=confirmed)
    return await calling.applier.apply(work_on(claimed))


@in_virtual_time
async def test_a_change_that_adds_a_seventeenth_pair_dies_and_the_others_are_sent() -> None:
    calling = Calling(stored=FULL)
    outcome = await apply(calling, '{"key0":"new"}', A)
    assert decided(outcome) == {"applied": [1], "dead": [2]}
    assert deaths(outcome) == [(2, "too_many_keys", TOO_MANY)]
    assert calling.client.sent == [FULL | {"key0": "new"}]


@in_virtual_time
async def test_where_all_add_a_seventeenth_pair_nothing_is_sent() -> None:
    calling = Calling(stored=FULL)
    outcome = await apply(calling, A, B)
    assert deaths(outcome) == [(1, "too_many_keys", TOO_MANY), (2, "too_many_keys", TOO_MANY)]
    assert (calling.client.sent, outcome.metadata, outcome.before) == ([], FULL, FULL)


@in_virtual_time
async def test_tried_one_by_one_a_seventeenth_pair_costs_its_change_and_no_request() -> None:
    calling = Calling(OK, REJECTED, OK, OK, stored=FULL)
    outcome = await apply(calling, '{"key0":"1"}', A, '{"key1":"2"}')
    assert decided(outcome) == {"applied": [1, 3], "dead": [2]}
    assert deaths(outcome) == [(2, "too_many_keys", TOO_MANY)]
    assert calling.client.sent[1:] == [FULL | {"key0": "1"}, FULL | {"key0": "1", "key1": "2"}]
    assert len(calling.client.asked_at) == 1 + 3  # what is known of the completion is not read again


@in_virtual_time
async def test_tried_one_by_one_a_merge_after_a_rejected_replacement_is_made_of_what_is_there() -> None:
    calling = Calling(REJECTED, REJECTED_FOR_CERTAIN, stored={"old": "x"})
    claim = claim_of(A, B)
    first, second = claim.changes
    merge = msgspec.structs.replace(second, mode="merge")
    outcome = await calling.applier.apply(work_on(msgspec.structs.replace(claim, changes=(first, merge))))
    assert decided(outcome) == {"applied": [2], "dead": [1]}
    assert calling.client.sent[-1] == {"old": "x", "topic": "b"}


@in_virtual_time
async def test_tried_one_by_one_a_read_that_fails_leaves_what_needs_it() -> None:
    calling = Calling(REJECTED, REJECTED_FOR_CERTAIN, failed(30.0))
    claim = claim_of(A, B)
    changes = (claim.changes[0], msgspec.structs.replace(claim.changes[1], mode="merge"))
    outcome = await calling.applier.apply(work_on(msgspec.structs.replace(claim, changes=changes)))
    assert (decided(outcome), outcome.delay_seconds) == ({"dead": [1], "deferred": [2]}, 30.0)


@in_virtual_time
async def test_tried_one_by_one_what_is_superseded_is_passed_over_and_the_next_one_is_sent() -> None:
    calling = Calling(REJECTED, REJECTED_FOR_CERTAIN, OK, OK)
    outcome = await calling.apply(A, B, C, A, as_of=[9.0, 5.0, 3.0, None])
    assert [change.number for change in outcome.superseded] == [3]
    assert decided(outcome) == {"applied": [2, 4], "dead": [1]}


@in_virtual_time
async def test_tried_one_by_one_a_later_change_is_sent_however_early_its_time() -> None:
    calling = Calling(REJECTED, OK, OK)
    assert decided(await calling.apply(A, B, as_of=[0.5, 0.7])) == {"applied": [1, 2]}


@in_virtual_time
async def test_a_dated_change_that_changes_nothing_is_unchanged() -> None:
    outcome = await apply(Calling(stored={"grade": "A"}), A, as_of=[5.0])
    assert (decided(outcome), outcome.error) == ({"unchanged": [1]}, None)


@in_virtual_time
@pytest.mark.parametrize("semantics", ["merge", "replace"])
async def test_where_it_is_known_what_a_replacement_does_its_leftovers_halt_none(semantics: str) -> None:
    calling = Calling(*[Answer(OK, {"grade": "A", "old": "x"})] * 9, semantics=semantics)
    for number in range(9):
        await calling.applier.apply(work_on(msgspec.structs.replace(claim_of(A), completion_id=f"chatcmpl-{number}")))
    assert calling.flow.snapshot().gate is GateState.OPEN


@in_virtual_time
async def test_where_each_is_refused_for_certain_nothing_is_left_to_wait() -> None:
    outcome = await Calling(REJECTED, REJECTED_FOR_CERTAIN, REJECTED_FOR_CERTAIN).apply(A, B)
    assert decided(outcome) == {"dead": [1, 2]}
    assert (outcome.deferral, outcome.delay_seconds) == (None, 0.0)


@in_virtual_time
async def test_what_a_read_may_not_show_yet_is_taken_as_the_service_confirmed_it() -> None:
    calling = Calling(stored={"old": "x"})
    outcome = await apply(calling, A, confirmed={"new": "y"})
    assert decided(outcome) == {"applied": [1]}
    assert calling.client.sent == [{"new": "y", "grade": "A"}]
    assert outcome.before == {"new": "y"}


@in_virtual_time
async def test_what_is_confirmed_but_not_shown_is_sent_again_though_nothing_changes() -> None:
    stale = Calling(stored={"old": "x"})
    assert decided(await apply(stale, A, confirmed={"grade": "A"})) == {"applied": [1]}
    assert stale.client.sent == [{"grade": "A"}]
    shown = Calling(stored={"grade": "A"})
    assert decided(await apply(shown, A, confirmed={"grade": "A"})) == {"unchanged": [1]}
    assert shown.client.sent == []


@in_virtual_time
async def test_what_was_there_before_is_kept_with_what_became_of_it() -> None:
    outcome = await apply(Calling(stored={"old": "x"}), A)
    assert (outcome.before, outcome.metadata) == ({"old": "x"}, {"old": "x", "grade": "A"})
    assert (await Calling(stored={"old": "x"}).apply(A)).before is None  # a replacement reads nothing


@in_virtual_time
async def test_a_read_that_fails_is_judged_as_any_other_answer_and_nothing_is_sent() -> None:
    calling = Calling(failed(30.0))
    outcome = await apply(calling, A, B)
    assert (decided(outcome), outcome.deferral, outcome.delay_seconds) == (
        {"deferred": [1, 2]}, Deferral.RETRY, 30.0
    )  # fmt: skip
    assert [number for number, _ in outcome.trials] == [1, 2]
    assert (calling.client.sent, outcome.error) == ([], "HTTP 503 Service Unavailable")


@in_virtual_time
async def test_a_read_that_finds_nothing_gives_up_those_whose_grace_is_over() -> None:
    met = [Trials(absences=9, first_absent_at=99.0), Trials()]
    outcome = await apply(Calling(NOT_FOUND), A, B, ages=[901.0, 30.0], trials=met)
    assert deaths(outcome) == [(1, "not_found", "HTTP 404 Not Found")]
    assert decided(outcome)["deferred"] == [2]


@in_virtual_time
async def test_an_absence_that_may_be_the_urls_is_believed_where_other_reads_get_through() -> None:
    unclear = Verdict(Kind.NOT_FOUND, 404, about="unclear")
    met: dict[str, Any] = {"ages": [901.0], "trials": [Trials(absences=9, first_absent_at=99.0)]}
    for operation, becomes in (("update", "deferred"), ("get", "dead")):
        calling = Calling(unclear)
        others_get_through(calling.flow, operation)  # type: ignore[arg-type]  # a word of `Operation`
        assert decided(await apply(calling, A, **met)) == {becomes: [1]}


@in_virtual_time
async def test_a_completion_that_is_missing_is_asked_for_again_after_half_of_that_time_give_or_take_a_quarter() -> None:
    calling = Calling(*[NOT_FOUND] * 200)
    met = [Trials(absences=9, first_absent_at=960.0)]
    delays = [(await calling.apply(A, ages=[500.0], trials=met)).delay_seconds for _ in range(200)]
    assert 15.0 <= min(delays) < 16.0
    assert 24.0 < max(delays) <= 25.0


class Looking(Script):
    """Notes which completion is asked for, and how long an answer may take."""

    def __init__(self) -> None:
        super().__init__([], {"old": "x"})
        self.asked: list[tuple[str, float]] = []

    async def get(self, completion_id: str, *, timeout_seconds: float) -> Answer:
        self.asked.append((completion_id, timeout_seconds))
        return await super().get(completion_id, timeout_seconds=timeout_seconds)

    async def update(self, completion_id: str, metadata: Any, *, timeout_seconds: float, fresh: bool = False) -> Answer:
        self.asked.append((completion_id, timeout_seconds))
        return await super().update(completion_id, metadata, timeout_seconds=timeout_seconds, fresh=fresh)


@in_virtual_time
async def test_the_completion_of_the_claim_is_read_and_changed_within_the_time_of_a_request() -> None:
    calling = Calling()
    calling.applier.client = client = Looking()
    await apply(calling, A)
    assert client.asked == [(ID, 60.0), (ID, 60.0)]
    assert client.fresh == [False]
    figures = calling.tallies.changes_per_request
    assert (sum(figures.counts), figures.total) == (1, 1.0)


@in_virtual_time
async def test_keys_that_are_not_as_wanted_are_named_and_looked_at_once_more() -> None:
    outcome = await Calling(Answer(OK, {"grade": "B"})).apply(A, '{"grade":"A","topic":"b"}')
    assert outcome.error == f"{NOT_AS_WANTED}: grade, topic"
    assert (outcome.second_look, outcome.deferral) == (True, Deferral.RETRY)
    assert not (await Calling().apply(A)).second_look


@in_virtual_time
async def test_keys_that_a_service_keeps_which_merges_are_named_with_what_to_do() -> None:
    stored = {"one": "1", "two": "2"}
    calling = Calling(OK, Answer(OK, stored), stored=stored)
    outcome = await apply(calling, '{"one":null,"two":null}')
    assert outcome.error == (f'{NOT_AS_WANTED}: one, two; a service that merges keeps one, two: set it to "" instead')


@in_virtual_time
async def test_what_did_not_persist_twice_is_held_where_it_happens_to_all_alike() -> None:
    calling = Calling(Answer(OK, {"grade": "B"}))
    for number in range(20):
        end(calling.flow, Ended(End.REJECTED, error=NOT_AS_WANTED), completion_id=f"other-{number}")
    outcome = await calling.apply(A, trials=[Trials(unpersisted=1)])
    assert (decided(outcome), outcome.deferral) == ({"deferred": [1]}, Deferral.RETRY)
    assert 0.0 <= outcome.delay_seconds <= 60.0
    assert outcome.error == f"{NOT_AS_WANTED}: grade"


@in_virtual_time
@pytest.mark.parametrize(
    ("read", "error"),
    [
        (
            Answer(OK, None),
            "the service does not show the completion's metadata: a merge would wipe what is there",
        ),
        (
            Answer(OK, {"n": "1"}, whole=False),
            (
                "the completion's metadata holds values that are no strings and cannot be sent back: "
                "a merge would wipe them"
            ),
        ),
    ],
    ids=["no metadata", "values that are no strings"],
)
async def test_what_a_read_hides_is_said(read: Answer, error: str) -> None:
    outcome = await apply(Calling(read), A)
    assert (decided(outcome), outcome.error, outcome.deferral) == ({"deferred": [1]}, error, Deferral.RETRY)
    assert [number for number, _ in outcome.trials] == [1]


@in_virtual_time
async def test_what_a_replacement_leaves_over_is_named_with_the_setting_that_decides_it() -> None:
    kept = Answer(OK, {"grade": "A", "old": "x", "older": "y"})
    outcome = await Calling(kept).apply(A)
    assert outcome.error == "the service kept old, older: does it merge? Set METASYNC_SEMANTICS"
    left = await Calling(kept, semantics="merge").apply(B, A)
    assert (left.leftover, left.leftover_keys) == (2, ("old", "older"))
    wrong = await Calling(kept, semantics="replace").apply(A)
    assert wrong.error == f"{NOT_AS_WANTED}: old, older"


@in_virtual_time
async def test_what_a_merge_finds_besides_is_left_over_and_nothing_is_said() -> None:
    calling = Calling(OK, Answer(OK, {"grade": "A", "other": "x"}))
    outcome = await apply(calling, A)
    assert (decided(outcome), outcome.leftover, outcome.leftover_keys) == ({"applied": [1]}, 0, ("other",))
    assert (outcome.error, outcome.confirmed) == (None, {"grade": "A", "other": "x"})


@in_virtual_time
async def test_the_lag_of_the_second_look_is_that_of_the_rules_and_never_nothing() -> None:
    for lag_seconds, least in ((60.0, 60.0), (5.0, 5.0), (0.0, 1.0)):
        outcome = await Calling(Answer(OK, {"grade": "B"}), read_lag_seconds=lag_seconds).apply(A)
        assert least <= outcome.delay_seconds <= least * 1.1


@in_virtual_time
async def test_the_clock_of_the_outcome_is_that_of_the_claim() -> None:
    calling = Calling()
    calling.client.takes_seconds = 2.0
    begun = now()
    outcome = await calling.apply(A, ages=[10.0])
    assert now() - begun == 2.0
    assert outcome.lag_ms == 12_000.0


@in_virtual_time
async def test_the_first_failure_is_waited_for_no_longer_than_the_policy_says_of_the_first() -> None:
    calling = Calling(*[Verdict(Kind.HALTED, 403)] * 40)
    calling.applier.policy = RetryPolicy(base_seconds=1.0, cap_seconds=600.0)
    delays = [(await calling.apply(A)).delay_seconds for _ in range(40)]
    assert 0.9 < max(delays) <= 1.0
