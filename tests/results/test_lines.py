"""The lines of the results file."""

import json
from collections.abc import Sequence
from typing import Any

from tests.engine.parts import ID, OK, Calling, claim_of, work_on
from tests.virtual import in_virtual_time
from worker.api import Answer
from worker.engine.outcome import Deferral, Outcome
from worker.queue import Claim, Death, QueuedChange
from worker.results.line import results_of, text_of
from worker.results.places import Places, fingerprint

AT = "2026-01-02T03:04:05.678Z"


def told(*outcomes: Outcome, places: Places | None = None, with_values: bool = False) -> list[dict[str, Any]]:
    text = text_of(list(results_of(outcomes, AT, places=places, with_values=with_values)))
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def changes(
    *metadata: str, change_ids: Sequence[str | None] | None = None, batches: Sequence[str | None] | None = None
) -> tuple[QueuedChange, ...]:
    nothing = [None] * len(metadata)
    texts = zip(metadata, change_ids or nothing, batches or nothing, strict=True)
    return tuple(
        QueuedChange(number, ID, change_id, "merge", text, 0.0, batch=batch)
        for number, (text, change_id, batch) in enumerate(texts, 7)
    )


def claim(held: tuple[QueuedChange, ...]) -> Claim:
    return Claim(ID, 1, held, age_seconds=0.0)


def test_each_change_has_a_line_with_its_own_keys_and_fate() -> None:
    applied, unchanged, dead, waiting, older = held = changes(
        *('{"a":"1"}', '{"b":"1","c":null}', '{"d":"1"}', '{"e":"1"}', '{"f":"1"}'),
        change_ids=["one", None, None, None, None],
        batches=["b-1", None, "b-2", None, "b-1"],
    )
    outcome = Outcome(
        claim(held),
        applied=(applied,),
        unchanged=(unchanged,),
        superseded=(older,),
        dead=((dead, Death(dead.number, "rejected", 3, status=400, error="HTTP 400", request_id="req_2")),),
        deferred=(waiting,),
        deferral=Deferral.RETRY,
        attempts=1,
        status=200,
        request_id="req_1",
        keys=("a", "b", "c", "d", "e"),
    )
    common = {"completion_id": ID, "change_id": None, "batch": None, "file": None, "line": None, "at": AT}
    unsent = {"reason": None, "error": None, "status": None, "request_id": None, "attempts": 0}
    good = {"reason": None, "error": None, "status": 200, "request_id": "req_1", "attempts": 2}
    assert told(outcome) == [
        common | good | {"change": 7, "change_id": "one", "batch": "b-1", "outcome": "applied", "keys": ["a"]},
        common | good | {"change": 8, "outcome": "unchanged", "keys": ["b", "c"]},
        common | unsent | {"change": 11, "batch": "b-1", "outcome": "superseded", "keys": ["f"]},
        common
        | {"change": 9, "batch": "b-2", "outcome": "dead", "keys": ["d"]}
        | {"reason": "rejected", "error": "HTTP 400", "status": 400, "request_id": "req_2", "attempts": 3},
    ]


def test_a_pending_change_has_no_line() -> None:
    held = changes('{"a":"1"}')
    assert told(Outcome(claim(held), deferred=held, deferral=Deferral.RETRY)) == []


def test_values_are_told_where_they_are_asked_for_and_only_as_far_as_they_are_known() -> None:
    first, second = held = changes('{"a":"1"}', '{"b":"1"}')
    done = Outcome(claim(held), applied=held, before={"x": "0"}, metadata={"x": "0", "a": "1"}, confirmed={"y": "2"})
    assert [(one["before"], one["after"]) for one in told(done, with_values=True)] == [({"x": "0"}, {"y": "2"})] * 2
    assert all("before" not in one and "after" not in one for one in told(done))
    found = Outcome(claim(held), unchanged=held, before={"a": "1"}, metadata={"a": "1"})
    assert [(one["before"], one["after"]) for one in told(found, with_values=True)] == [({"a": "1"}, {"a": "1"})] * 2
    older = Outcome(
        claim(held), applied=(first,), superseded=(second,), before={}, metadata={"a": "1"}, confirmed={"a": "1"}
    )
    assert [(one["before"], one["after"]) for one in told(older, with_values=True)] == [({}, {"a": "1"}), (None, None)]
    # The service showed something else than was sent: its current state is unknown.
    half = Outcome(claim(held), applied=(first,), dead=((second, Death(8, "not_persisted", 1)),), metadata={"a": "1"})
    assert [(one["before"], one["after"]) for one in told(half, with_values=True)] == [(None, None)] * 2


def test_odd_text_makes_a_line_all_the_same() -> None:
    held = changes("no JSON", change_ids=["half \ud800 of a pair"])
    (line,) = told(Outcome(claim(held), applied=held, keys=("k",)), places=Places())
    assert (line["change_id"], line["keys"]) == ("half \ud800 of a pair", [])


@in_virtual_time
async def test_before_is_what_was_read_and_what_was_confirmed_lately_where_that_is_newer() -> None:
    read = Answer(OK, {"old": "1"})
    merge = claim_of('{"a":"1"}', mode="merge")
    outcome = await Calling(read).applier.apply(work_on(merge))
    assert (outcome.before, outcome.confirmed) == ({"old": "1"}, {"old": "1", "a": "1"})
    newer = Claim(ID, 1, merge.changes, 0.0, confirmed={"new": "2"})
    assert (await Calling(read).applier.apply(work_on(newer))).before == {"new": "2"}
    replaced = await Calling().applier.apply(work_on(claim_of('{"a":"1"}', mode="replace")))
    assert (replaced.before, replaced.confirmed) == (None, {"a": "1"})


def _places(*read: tuple[str, int, dict[str, str | None]]) -> Places:
    places = Places()
    for file, line, metadata in read:
        places.add(fingerprint(ID, None, "merge", metadata), file, line)
    return places


def _place(places: Places, number: int, metadata: dict[str, str | None]) -> tuple[str | None, int | None]:
    return places.of(number, fingerprint(ID, None, "merge", metadata))


def test_a_change_is_found_again_where_it_was_read() -> None:
    places = _places(("a.jsonl", 3, {"k": "1"}), ("a.jsonl", 5, {"k": "2"}), ("b.csv", 2, {"k": None}))
    assert _place(places, 1, {"k": "2"}) == ("a.jsonl", 5)
    assert _place(places, 2, {"k": None}) == ("b.csv", 2)
    assert _place(places, 3, {"k": "1"}) == ("a.jsonl", 3)
    assert _place(places, 4, {"k": "none of them"}) == (None, None)
    places.add(fingerprint(ID, None, "merge", {"k": "late"}), "b.csv", 9)
    assert _place(places, 5, {"k": "late"}) == ("b.csv", 9)
    held = changes('{"k":"2"}')
    (line,) = told(Outcome(claim(held), applied=held, keys=("k",)), places=places)
    assert (line["file"], line["line"], line["keys"]) == ("a.jsonl", 5, ["k"])


def test_of_lines_that_say_the_same_each_change_has_its_own_however_often_it_is_told() -> None:
    places = _places(("a", 1, {"k": "1"}), ("a", 2, {"k": "1"}))
    assert [_place(places, number, {"k": "1"}) for number in (4, 9, 4, 9)] == [("a", 1), ("a", 2), ("a", 1), ("a", 2)]
    assert _place(places, 10, {"k": "1"}) == ("a", 2)  # it was pending before


def test_many_lines_that_say_the_same_are_not_searched_one_by_one() -> None:
    class Number(int):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Number.compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    count = 1_000
    metadata: dict[str, str | None] = {"k": "1"}
    places = _places(*(("a", line, metadata) for line in range(count)))
    assert [_place(places, Number(number), metadata) for number in range(count)] == [
        ("a", line) for line in range(count)
    ]
    assert Number.compared < 10 * count
