"""Differences: folded as by the engine, and checked twice."""

import pytest

from tests.sync.house import House
from worker.changes import MetadataChange
from worker.changes.change import MAX_PAIRS
from worker.engine.blame import Semantics
from worker.sync.comparing import Before, Difference, compare
from worker.sync.spool import Entry, Spool

C = "chatcmpl-1"


def _compare(current: dict[str, str], *changes: MetadataChange, semantics: Semantics = "unknown") -> Difference:
    return compare(Entry(1, C, list(changes)), current, semantics)


def test_set_changed_and_removed_keys_are_told_apart() -> None:
    change = MetadataChange(C, {"grade": "A", "topic": "refunds", "draft": None, "gone": None, "same": "s"})
    found = _compare({"topic": "billing", "draft": "yes", "same": "s", "other": "o"}, change)
    assert found == Difference(
        C, "differs", set={"grade": "A"}, changed={"topic": Before("billing", "refunds")}, removed={"draft": "yes"}
    )
    assert _compare({"grade": "A", "topic": "refunds", "same": "s", "other": "o"}, change).state == "in_sync"


def test_changes_are_folded_in_their_order() -> None:
    first, second = MetadataChange(C, {"a": "1", "b": "1"}), MetadataChange(C, {"b": None, "c": "1"})
    assert _compare({}, first, second).set == {"a": "1", "c": "1"}
    assert _compare({}, first, MetadataChange(C, {}, "replace")).state == "in_sync"
    assert _compare({"x": "1"}, first, MetadataChange(C, {"y": "1"}, "replace")).removed == {"x": "1"}


def test_a_change_that_is_as_of_an_earlier_time_than_one_before_it_changes_nothing() -> None:
    newer = MetadataChange("c-1", {"grade": "A"}, "replace", as_of=200.0)
    older = MetadataChange("c-1", {"grade": "B"}, "replace", as_of=100.0)
    spool = Spool()
    spool.add([newer, older])
    [entry] = spool.entries()
    assert compare(entry, {"grade": "A"}, "unknown").state == "in_sync"
    assert [change.as_of for change in entry.changes] == [200.0, 100.0]
    spool.close()


def test_a_change_that_would_be_a_dead_letter_is_refused_and_the_others_are_not() -> None:
    full = {f"k{number}": "v" for number in range(MAX_PAIRS)}
    found = _compare(full, MetadataChange(C, {"one": "more"}), MetadataChange(C, {"k0": "w"}))
    assert (found.state, found.refused, found.changed) == ("refused", 1, {"k0": Before("v", "w")})
    assert _compare(full, MetadataChange(C, {"one": "more"})).state == "refused"


def test_what_a_replacement_leaves_over_differs_unless_it_is_known_that_the_service_merges() -> None:
    change = MetadataChange(C, {"a": "1"}, "replace")
    assert _compare({"a": "1", "b": "2"}, change).removed == {"b": "2"}
    found = _compare({"a": "1", "b": "2"}, change, semantics="merge")
    assert (found.state, found.leftover, found.removed) == ("in_sync", ["b"], {})
    removal = MetadataChange(C, {"b": None})
    assert _compare({"a": "1", "b": "2"}, change, removal, semantics="merge").removed == {"b": "2"}


def test_keys_alone_hold_no_value() -> None:
    found = _compare({"t": "SECRET1", "d": "SECRET2"}, MetadataChange(C, {"g": "SECRET3", "t": "SECRET4", "d": None}))
    assert "SECRET" not in str(found)
    keys = found.without_values()
    assert (keys.set, keys.changed, keys.removed) == ({"g": None}, {"t": Before(None, None)}, {"d": None})


@pytest.mark.parametrize("count", [1, 3, 200])
async def test_what_is_in_sync_is_read_once_and_what_is_not_once_more(house: House, count: int) -> None:
    ids = [f"chatcmpl-{number:03d}" for number in range(count)]
    for each in ids:
        house.simulator.seed(each, {"grade": "A"})
    _, counts = await house.diff([MetadataChange(each, {"grade": "A"}) for each in ids], lag_seconds=60)
    assert (counts.in_sync, counts.total, house.requests("get")) == (count, count, count)
    found, counts = await house.diff([MetadataChange(each, {"grade": "B"}) for each in ids], lag_seconds=60)
    assert (counts.differs, counts.total, house.requests("get")) == (count, count, 3 * count)
    assert [each.completion_id for each in found] == ids


async def test_a_read_that_lags_is_not_believed_before_the_lag_is_over(house: House) -> None:
    house.simulator.seed(C, {"grade": "old"})
    house.simulator.seed("chatcmpl-2", {})

    class Late:
        """The first read of each shows what was there before."""

        def __init__(self) -> None:
            self.reads: list[str] = []

        async def get(self, completion_id: str, **options: object) -> object:
            answer = await house.client.get(completion_id, **options)  # type: ignore[arg-type] # passed on
            if completion_id not in self.reads:
                await house.client.update(completion_id, {"grade": "A"}, timeout_seconds=5)
            self.reads.append(completion_id)
            return answer

    late = House(house.simulator, Late())  # type: ignore[arg-type] # all that is asked of it
    found, counts = await late.diff([MetadataChange(C, {"grade": "A"})], lag_seconds=60)
    assert (counts.in_sync, [each.state for each in found]) == (1, ["in_sync"])


async def test_missing_completions_are_counted_and_named(house: House) -> None:
    house.simulator.seed(C, {})
    changes = [MetadataChange("chatcmpl-none", {"a": "1"}), MetadataChange(C, {"a": "1"})]
    found, counts = await house.diff(changes)
    assert [each.state for each in found] == ["not_found", "differs"]
    assert (counts.not_found, counts.differs, counts.total) == (1, 1, 2)
