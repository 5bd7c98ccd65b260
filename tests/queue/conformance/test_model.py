"""Every backend against a simple model, over any sequence of calls, those of workers that come too late among them."""

import asyncio
import tempfile
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
from worker.queue import REASONS, Claim, DeadSelection, Death, Revived, Settlement, Stored

COMPLETION_IDS = st.sampled_from(["c-1", "c-2", "c-3", "c-4"])
CHANGE_IDS = st.none() | st.sampled_from(["line-1", "line-2", "line-3"])
SECONDS = st.sampled_from([0, 1, 10, 60])


@dataclass(slots=True)
class Pending:
    """A change that is not done. Its label tells it from all others; the number is known from the first claim on."""

    label: int
    change_id: str | None
    trials: str | None = None


@dataclass(slots=True)
class Target:
    visible_at: float
    lease: int | None = None
    changes: list[Pending] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Letter:
    label: int
    completion_id: str
    change_id: str | None
    reason: str


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
        self.claims: list[Claim] = []  # every claim that there ever was
        self.last_label = self.last_lease = 0

    def teardown(self) -> None:
        try:
            self.advance(1_000)
            self.claim(limit=100, lease_seconds=1)  # compares all that is left
        finally:
            self.run(self.resources.aclose())
            self.runner.close()

    @rule(wanted=st.lists(st.tuples(COMPLETION_IDS, CHANGE_IDS, st.booleans()), max_size=6))
    def put(self, wanted: list[tuple[str, str | None, bool]]) -> None:
        """Some come again under a change_id that is pending: as they are, or with another label."""
        changes = []
        conflicts = []
        added = 0
        for position, (new_completion_id, change_id, comes_again) in enumerate(wanted):
            self.last_label += 1
            completion_id, label = new_completion_id, self.last_label
            pending = self.pending_by_change_id().get(change_id) if change_id else None
            if pending is None:
                self.append(completion_id, Pending(label, change_id))
                added += 1
            elif comes_again:
                completion_id, label = pending
            else:
                conflicts.append(position)
            changes.append(MetadataChange(completion_id, {"label": str(label)}, change_id=change_id))

        expected = Stored(added, len(changes) - added - len(conflicts), tuple(conflicts))
        assert self.run(self.queue.put(changes)) == expected

    @rule(limit=st.integers(1, 4), lease_seconds=st.sampled_from([5, 30]))
    def claim(self, limit: int, lease_seconds: float) -> None:
        claims = self.run(self.queue.claim(limit, lease_seconds=lease_seconds, owner="worker"))

        due = sorted(target.visible_at for target in self.targets.values() if target.visible_at <= self.now)
        claimed = [self.targets[claim.completion_id] for claim in claims]
        assert sorted(target.visible_at for target in claimed) == due[:limit]
        for claim, target in zip(claims, claimed, strict=True):
            assert claim.lease > self.last_lease
            assert [_label(change.metadata) for change in claim.changes] == [each.label for each in target.changes]
            assert [change.change_id for change in claim.changes] == [each.change_id for each in target.changes]
            assert [change.trials for change in claim.changes] == [each.trials for each in target.changes]
            target.lease, target.visible_at = claim.lease, self.now + lease_seconds
        self.last_lease = max([self.last_lease, *(claim.lease for claim in claims)])
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Settle recent claims and old ones, some twice, each change in its own way."""
        chosen = data.draw(st.lists(st.sampled_from(self.claims[-6:]), min_size=1, max_size=4))
        settlements = [self.draw_settlement(data, claim) for claim in chosen]

        stale = [settlement for settlement in settlements if not self.apply(settlement)]

        assert self.run(self.queue.settle(settlements)) == stale

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

    @rule(completion_id=st.none() | COMPLETION_IDS, reason=st.none() | st.sampled_from(REASONS[:2]))
    def retry_dead(self, completion_id: str | None, reason: str | None) -> None:
        retried, kept = [], []
        for letter in self.selected(completion_id, reason):
            if letter.change_id is not None and letter.change_id in self.pending_by_change_id():
                kept.append(letter)
            else:
                self.append(letter.completion_id, Pending(letter.label, letter.change_id))
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
            Letter(_label(letter.metadata), letter.completion_id, letter.change_id, letter.reason) for letter in found
        ] == self.dead

    def append(self, completion_id: str, change: Pending) -> None:
        self.targets.setdefault(completion_id, Target(visible_at=self.now)).changes.append(change)

    def pending_by_change_id(self) -> dict[str | None, tuple[str, int]]:
        """Give completion and label of what is pending."""
        return {
            change.change_id: (completion_id, change.label)
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
                st.sampled_from(["applied", "unchanged", "left", "tried", *REASONS[:2]]),
                min_size=len(claim.changes),
                max_size=len(claim.changes),
            )
        )
        by_fate = list(zip(fates, (change.number for change in claim.changes), strict=True))
        return Settlement(
            claim,
            applied=[number for fate, number in by_fate if fate == "applied"],
            unchanged=[number for fate, number in by_fate if fate == "unchanged"],
            dead=[Death(number, reason, 1) for fate, number in by_fate for reason in REASONS if fate == reason],
            delay_seconds=data.draw(SECONDS),
            trials=[(number, f"tried at {self.now}") for fate, number in by_fate if fate == "tried"],
        )

    def apply(self, settlement: Settlement) -> bool:
        """Carry the settlement out in the model; False if it is stale."""
        claim = settlement.claim
        target = self.held(claim)
        if target is None:
            return False
        labels = {change.number: _label(change.metadata) for change in claim.changes}
        change_ids = {change.number: change.change_id for change in claim.changes}
        for death in settlement.dead:
            self.dead.append(Letter(labels[death.number], claim.completion_id, change_ids[death.number], death.reason))
        done = {labels[number] for number in settlement.done()}
        for number, trials in settlement.trials:
            next(each for each in target.changes if each.label == labels[number]).trials = trials
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
