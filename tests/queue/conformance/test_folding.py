"""Withdrawals between puts, claims and settlements: the remaining changes are as if the others had never come."""

import asyncio
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.queue.conformance.backends import BACKENDS, Backend
from tests.queue.helpers import LEASE_SECONDS, finished
from worker.changes import MetadataChange
from worker.changes.change import Mode
from worker.changes.fold import fold
from worker.queue import Claim, PendingSelection, Place, QueuedChange, Settlement

IDS = st.sampled_from(["c-1", "c-2"])
KEYS = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.builds(MetadataChange, IDS, st.dictionaries(KEYS, st.none() | st.sampled_from(["x", "y"]))),
    st.builds(MetadataChange, IDS, st.dictionaries(KEYS, st.sampled_from(["x", "y"])), st.just("replace")),
)
BATCHES = st.none() | st.sampled_from(["b-1", "b-2"])
PLACES: st.SearchStrategy[Place] = st.sampled_from(["oldest", "newest", "urgent"])
SELECTIONS = st.builds(PendingSelection, st.sampled_from(["b-1", "b-2"])) | st.builds(PendingSelection, st.none(), IDS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.tuples(st.lists(CHANGES, min_size=1, max_size=4), BATCHES, st.booleans())),
        st.tuples(st.just("claim"), PLACES),
        st.tuples(st.just("settle"), st.integers(0, 6)),  # how many of a claim's changes are applied
        st.tuples(st.just("withdraw"), SELECTIONS),
        st.tuples(st.just("wait"), st.sampled_from([1.0, LEASE_SECONDS + 1])),
    ),
    max_size=30,
)


def _plain(change: QueuedChange) -> MetadataChange:
    metadata = msgspec.json.decode(change.metadata)
    return MetadataChange(change.completion_id, metadata, cast("Mode", change.mode))


@dataclass(slots=True)
class Run:
    """The queue, a service that gets the folded claims, and the changes that came and were not withdrawn."""

    backend: Backend
    service: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    wanted: dict[int, MetadataChange] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    async def do(self, step: str, given: Any) -> None:
        queue = self.backend.queue
        match step, given:
            case "put", (changes, batch, urgent):
                await queue.put(changes, batch=batch, urgent=urgent)
                self.wanted |= await self.pending()
            case "claim", place:
                self.claims += await queue.claim(2, lease_seconds=LEASE_SECONDS, owner="worker", place=place)
            case "settle", int(most) if self.claims:
                await self.settle(self.claims.pop(0), most)
            case "withdraw", PendingSelection() as selection:
                before = await self.pending()
                told = await queue.withdraw(selection)
                gone = before.keys() - (await self.pending()).keys()
                assert len(gone) == told.withdrawn
                self.wanted = {number: change for number, change in self.wanted.items() if number not in gone}
            case "wait", float(seconds):
                await self.backend.advance(seconds)

    async def settle(self, claim: Claim, most: int) -> None:
        """Apply the first of its changes, unless another worker holds the completion, or they are gone."""
        first = claim.changes[:most]
        settlement = Settlement(claim, applied=[change.number for change in first])
        if await self.backend.queue.settle([settlement]) == []:
            current = self.service[claim.completion_id]
            self.service[claim.completion_id] = fold(current, [_plain(change) for change in first]).metadata

    async def pending(self) -> dict[int, MetadataChange]:
        return {change.number: _plain(change) async for change in self.backend.queue.pending_changes()}

    async def drain(self) -> None:
        await self.backend.advance(LEASE_SECONDS + 1)
        for place in ("oldest", "urgent"):
            for claim in await self.backend.queue.claim(9, lease_seconds=9, owner="worker", place=place):
                await self.settle(claim, len(finished(claim).applied))
        assert await self.pending() == {}

    def one_by_one(self) -> dict[str, dict[str, str]]:
        """The final metadata if each change is sent alone, in order."""
        service: dict[str, dict[str, str]] = defaultdict(dict)
        for _, change in sorted(self.wanted.items()):
            service[change.completion_id] = fold(service[change.completion_id], [change]).metadata
        return service


@pytest.mark.parametrize("backend_name", sorted(BACKENDS))
def test_what_remains_folds_to_what_one_by_one_would_give(backend_name: str) -> None:
    async def run(steps: list[tuple[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with BACKENDS[backend_name](Path(folder)) as backend:
                run = Run(backend)
                for step, given in steps:
                    await run.do(step, given)
                await run.drain()
                ids = ("c-1", "c-2")
                assert {each: run.service[each] for each in ids} == {each: run.one_by_one()[each] for each in ids}

    @settings(max_examples=40, deadline=None)
    @given(steps=STEPS)
    def test(steps: list[tuple[str, Any]]) -> None:
        asyncio.run(run(steps))

    test()
