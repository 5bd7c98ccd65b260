"""Every backend against a simple model, over any sequence of calls, late ones included."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.queue.conformance.backends import BACKENDS
from tests.queue.helpers import letters
from worker.changes import MetadataChange
from worker.queue import (
    REASONS,
    Claim,
    DeadSelection,
    Death,
    PendingSelection,
    Place,
    Revived,
    Settlement,
    Stored,
    Withdrawn,
)

COMPLETION_IDS = st.sampled_from(["c-1", "c-2", "c-3", "c-4"])
CHANGE_IDS = st.none() | st.sampled_from(["line-1", "line-2", "line-3"])
BATCHES = st.none() | st.sampled_from(["b-1", "b-2"])
PLACES: st.SearchStrategy[Place] = st.sampled_from(["oldest", "urgent"])
SECONDS = st.sampled_from([0, 1, 10, 60])


@dataclass(slots=True)
class Pending:
    """A change that is not done. Its label tells it from all others; the number is known from the first claim on."""

    label: int
    change_id: str | None
    batch: str | None
    urgent: bool = False
    trials: str | None = None


@dataclass(slots=True)
class Target:
    visible_at: float
    lease: int | None = None
    changes: list[Pending] = field(default_factory=list)

    @property
    def urgent(self) -> bool:
        return any(change.urgent for change in self.changes)


@dataclass(frozen=True, slots=True)
class Letter:
    label: int
    completion_id: str
    change_id: str | None
    reason: str
    batch: str | None


class QueueMachine(RuleBasedStateMachine):
    """The queue and the model, side by side."""

    backend_name: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.resources = AsyncExitStack()
        folder = self.resources.enter_context(tempfile.TemporaryDirectory())
        opened = BACKENDS[self.backend_name](Path(folder))
        self.backend = self.run(self.resources.enter_async_context(opened))
        self.queue = self.backend.queue
        self.now = 0.0
        self.targets: dict[str, Target] = {}
        self.dead: list[Letter] = []
        self.claims: list[Claim] = []  # every claim ever made
        self.settled: set[str] = set()  # change_ids that are remembered
        self.batches: dict[str, Counter[str]] = {}
        self.last_label = self.last_lease = 0

    def teardown(self) -> None:
        try:
            self.advance(1_000)
            for place in ("oldest", "urgent"):
                self.claim(limit=100, lease_seconds=1, place=place)  # compares the whole content
        finally:
            self.run(self.resources.aclose())
            self.runner.close()

    @rule(
        wanted=st.lists(st.tuples(COMPLETION_IDS, CHANGE_IDS, st.booleans()), max_size=6),
        batch=BATCHES,
        urgent=st.booleans(),
    )
    def put(self, wanted: list[tuple[str, str | None, bool]], batch: str | None, *, urgent: bool) -> None:
        """Some come again under a pending or settled change_id, unchanged or with another label."""
        changes = []
        conflicts = []
        added = 0
        pending_in: Counter[str | None] = Counter()
        before = self.kinds()
        for position, (new_completion_id, change_id, comes_again) in enumerate(wanted):
            self.last_label += 1
            completion_id, label = new_completion_id, self.last_label
            pending = self.pending_by_change_id().get(change_id) if change_id else None
            if change_id in self.settled:
                pass
            elif pending is None:
                self.append(completion_id, Pending(label, change_id, batch, urgent))
                added += 1
            elif comes_again:
                completion_id, label, in_batch = pending
                pending_in[in_batch] += 1
            else:
                conflicts.append(position)
            changes.append(MetadataChange(completion_id, {"label": str(label)}, change_id=change_id))

        expected = Stored(added, len(changes) - added - len(conflicts), tuple(conflicts), dict(pending_in))
        assert self.run(self.queue.put(changes, batch=batch, urgent=urgent)) == expected
        self.move(before)
        if batch is not None and wanted:
            self.batches.setdefault(batch, Counter())["changes"] += added

    @rule(limit=st.integers(1, 4), lease_seconds=st.sampled_from([5, 30]), place=PLACES)
    def claim(self, limit: int, lease_seconds: float, place: Place) -> None:
        claims = self.run(self.queue.claim(limit, lease_seconds=lease_seconds, owner="worker", place=place))

        due = sorted(
            target.visible_at
            for target in self.targets.values()
            if target.visible_at <= self.now and target.urgent == (place == "urgent")
        )
        claimed = [self.targets[claim.completion_id] for claim in claims]
        assert sorted(target.visible_at for target in claimed) == due[:limit]
        for claim, target in zip(claims, claimed, strict=True):
            assert claim.lease > self.last_lease
            assert [_label(change.metadata) for change in claim.changes] == [each.label for each in target.changes]
            assert [change.change_id for change in claim.changes] == [each.change_id for each in target.changes]
            assert [change.trials for change in claim.changes] == [each.trials for each in target.changes]
            assert [change.batch for change in claim.changes] == [each.batch for each in target.changes]
            target.lease, target.visible_at = claim.lease, self.now + lease_seconds
        self.last_lease = max([self.last_lease, *(claim.lease for claim in claims)])
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), remember=st.booleans())
    def settle(self, data: st.DataObject, *, remember: bool) -> None:
        """Settle recent claims and old ones, some twice, each change in its own way."""
        chosen = data.draw(st.lists(st.sampled_from(self.claims[-6:]), min_size=1, max_size=4))
        settlements = [self.draw_settlement(data, claim) for claim in chosen]

        stale = [settlement for settlement in settlements if not self.apply(settlement, remember=remember)]

        assert self.run(self.queue.settle(settlements, remember=remember)) == stale

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), lease_seconds=st.sampled_from([5, 30]))
    def extend(self, data: st.DataObject, lease_seconds: float) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.claims[-6:]), min_size=1, max_size=4))

        lost = [claim for claim in chosen if not self.held(claim)]
        for claim in chosen:
            if target := self.held(claim):
                target.visible_at = self.now + lease_seconds

        assert self.run(self.queue.extend(chosen, lease_seconds=lease_seconds)) == lost

    @rule(seconds=st.sampled_from([1, 5, 30, 100]))
    def advance(self, seconds: float) -> None:
        self.run(self.backend.advance(seconds))
        self.now += seconds

    @rule(completion_id=st.none() | COMPLETION_IDS, change_id=CHANGE_IDS, batch=BATCHES)
    def withdraw(self, completion_id: str | None, change_id: str | None, batch: str | None) -> None:
        selection = PendingSelection(batch=batch, completion_id=completion_id, change_id=change_id)
        if selection.is_everything:
            return
        withdrawn = in_flight = 0
        before = self.kinds()
        for target_id, target in list(self.targets.items()):
            selected = [each for each in target.changes if selection.matches(target_id, each.change_id, each.batch)]
            if target.lease and target.visible_at > self.now:
                in_flight += len(selected)
            elif selected:
                withdrawn += len(selected)
                target.lease = None
                target.changes = [each for each in target.changes if each not in selected]
                self.count("withdrawn", selected)
                if not target.changes:
                    del self.targets[target_id]

        assert self.run(self.queue.withdraw(selection)) == Withdrawn(withdrawn, in_flight)
        self.move(before)

    def kinds(self) -> dict[str, bool]:
        """Which completions are urgent."""
        return {completion_id: target.urgent for completion_id, target in self.targets.items()}

    def move(self, before: dict[str, bool]) -> None:
        """On PostgreSQL, a target that becomes urgent, or no longer is, is due from now on, above each floor."""
        if self.backend_name == "postgres":
            for completion_id, target in self.targets.items():
                if target.urgent != before.get(completion_id, target.urgent):
                    target.visible_at = max(target.visible_at, self.now)

    @rule(completion_id=st.none() | COMPLETION_IDS, reason=st.none() | st.sampled_from(REASONS[:2]))
    def retry_dead(self, completion_id: str | None, reason: str | None) -> None:
        retried, kept = [], []
        for letter in self.selected(completion_id, reason):
            is_known = letter.change_id in self.pending_by_change_id() or letter.change_id in self.settled
            if letter.change_id is not None and is_known:
                kept.append(letter)
            else:
                revived = Pending(letter.label, letter.change_id, letter.batch)
                self.append(letter.completion_id, revived)
                self.count("dead", [revived], -1)
                retried.append(letter)
        self.dead = [letter for letter in self.dead if letter not in retried]

        selection = DeadSelection(completion_id=completion_id, reason=reason)
        assert self.run(self.queue.retry_dead(selection)) == Revived(len(retried), len(kept))

    @rule(completion_id=st.none() | COMPLETION_IDS, reason=st.sampled_from(REASONS[:2]))
    def purge_dead(self, completion_id: str | None, reason: str) -> None:
        purged = self.selected(completion_id, reason)
        self.dead = [letter for letter in self.dead if letter not in purged]

        selection = DeadSelection(completion_id=completion_id, reason=reason)
        assert self.run(self.queue.purge_dead(selection)) == len(purged)

    @invariant()
    def status_is_as_the_model_says(self) -> None:
        status = self.run(self.queue.status())
        later = [target for target in self.targets.values() if target.visible_at > self.now]

        assert status.pending == sum(len(target.changes) for target in self.targets.values())
        assert status.in_flight == sum(len(target.changes) for target in later if target.lease)
        assert status.waiting == sum(len(target.changes) for target in later if not target.lease)
        assert status.dead == len(self.dead)

    @invariant()
    def the_next_due_is_as_the_model_says(self) -> None:
        earliest = min((target.visible_at for target in self.targets.values()), default=None)

        due = self.run(self.queue.next_due_seconds())

        assert due == (None if earliest is None else pytest.approx(earliest - self.now, abs=1e-3))

    @invariant()
    def the_letters_are_as_the_model_says(self) -> None:
        found = self.run(letters(self.queue))

        assert [
            Letter(_label(letter.metadata), letter.completion_id, letter.change_id, letter.reason, letter.batch)
            for letter in found
        ] == self.dead

    @invariant()
    def the_batches_are_as_the_model_says(self) -> None:
        found = {batch.name: batch for batch in self.run(self.queue.batches())}

        assert found.keys() == self.batches.keys()
        for name, counts in self.batches.items():
            ends = ("changes", "applied", "unchanged", "superseded", "dead", "withdrawn")
            assert {end: getattr(found[name], end) for end in ends} == {end: counts[end] for end in ends}
            pending = [each for target in self.targets.values() for each in target.changes if each.batch == name]
            assert found[name].pending == len(pending)

    def append(self, completion_id: str, change: Pending) -> None:
        self.targets.setdefault(completion_id, Target(visible_at=self.now)).changes.append(change)

    def count(self, end: str, changes: Iterable[Pending], times: int = 1) -> None:
        """Count these in their batches."""
        for change in changes:
            if change.batch is not None:
                self.batches[change.batch][end] += times

    def pending_by_change_id(self) -> dict[str | None, tuple[str, int, str | None]]:
        """Return completion, label and batch of all pending changes."""
        return {
            change.change_id: (completion_id, change.label, change.batch)
            for completion_id, target in self.targets.items()
            for change in target.changes
        }

    def selected(self, completion_id: str | None, reason: str | None) -> list[Letter]:
        return [
            letter
            for letter in self.dead
            if completion_id in (None, letter.completion_id) and reason in (None, letter.reason)
        ]

    def held(self, claim: Claim) -> Target | None:
        target = self.targets.get(claim.completion_id)
        return target if target and target.lease == claim.lease else None

    def draw_settlement(self, data: st.DataObject, claim: Claim) -> Settlement:
        fates = data.draw(
            st.just(["applied"] * len(claim.changes))
            | st.lists(
                st.sampled_from(["applied", "unchanged", "superseded", "left", "tried", *REASONS[:2]]),
                min_size=len(claim.changes),
                max_size=len(claim.changes),
            )
        )
        by_fate = list(zip(fates, (change.number for change in claim.changes), strict=True))
        return Settlement(
            claim,
            applied=[number for fate, number in by_fate if fate == "applied"],
            unchanged=[number for fate, number in by_fate if fate == "unchanged"],
            superseded=[number for fate, number in by_fate if fate == "superseded"],
            dead=[Death(number, reason, 1) for fate, number in by_fate for reason in REASONS if fate == reason],
            delay_seconds=data.draw(SECONDS),
            trials=[(number, f"tried at {self.now}") for fate, number in by_fate if fate == "tried"],
        )

    def apply(self, settlement: Settlement, *, remember: bool) -> bool:
        """Carry the settlement out in the model; return False if it is stale."""
        claim = settlement.claim
        target = self.held(claim)
        if target is None:
            return False
        labels = {change.number: _label(change.metadata) for change in claim.changes}
        pending = {change.label: change for change in target.changes}
        ends = {"applied": settlement.applied, "unchanged": settlement.unchanged, "superseded": settlement.superseded}
        for end, numbers in ends.items():
            changes = [pending[labels[number]] for number in numbers]
            self.count(end, changes)
            if remember:
                self.settled.update(each.change_id for each in changes if each.change_id is not None)
        for death in settlement.dead:
            change = pending[labels[death.number]]
            self.dead.append(Letter(change.label, claim.completion_id, change.change_id, death.reason, change.batch))
            self.count("dead", [change])
        done = {labels[number] for number in settlement.done()}
        for number, trials in settlement.trials:
            pending[labels[number]].trials = trials
        target.changes = [change for change in target.changes if change.label not in done]
        target.lease, target.visible_at = None, self.now + settlement.delay_seconds
        if not target.changes:
            del self.targets[claim.completion_id]
        return True


def _label(metadata: str) -> int:
    return int(msgspec.json.decode(metadata)["label"])


@pytest.mark.parametrize("backend_name", sorted(BACKENDS))
def test_the_queue_does_what_its_model_does(backend_name: str) -> None:
    machine = type("Machine", (QueueMachine,), {"backend_name": backend_name})

    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=40, deadline=None))
