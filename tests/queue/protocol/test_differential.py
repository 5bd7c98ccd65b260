"""Every store answers as the model does, along random walks."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.queue.conformance.backends import BACKENDS, START, Backend, PutBack
from tests.queue.helpers import changes, labels, letters
from tests.queue.protocol.model import Guard, Protocol, State, Step, Target, told, withdrawn_of
from worker.queue import Claim, DeadSelection, Death, PendingSelection, Place, Settlement, Store, Withdrawn

_US_PER_SECOND = 1_000_000
# In microseconds, such that neither a float nor a clock has to round them.
PROTOCOL = Protocol(
    puts=20,
    retries=None,
    steps=4,
    failovers=2,
    withdrawals=12,
    urgent=True,
    any_due=False,
    tick=_US_PER_SECOND,
    instant=_US_PER_SECOND // 64,
    leap=5 * _US_PER_SECOND,
)
SEEDS, STEPS = 4, 90
WEIGHTS = {"put": 4, "claim": 8, "claim urgent": 8, "fail over": 8, "fall behind": 4, "retry dead": 3, "clock": 2}
KINDS = {"put", "claim", "extend", "settle", "tick", "clock", "retry dead", "fall behind", "fail over"}
KINDS |= {"put urgent", "claim urgent", "withdraw"}


@dataclass(slots=True)
class Walk:
    """The model and a store, side by side.

    Args:
        workers: the store, opened once for each worker.
        claims: what each worker holds.
        now_us: of the store's clock.
    """

    backend: Backend
    workers: list[Store]
    state: State = field(default_factory=PROTOCOL.start)
    claims: dict[int, Claim] = field(default_factory=dict)
    now_us: int = int(START) * _US_PER_SECOND
    put_back: PutBack | None = None

    async def advance(self, by_us: int) -> None:
        await self.backend.advance(by_us / _US_PER_SECOND)
        self.now_us += by_us

    async def take(self, step: Step) -> None:
        """Take the step in both, and compare the answers."""
        match step:
            case Step("claim" | "claim urgent" | "extend" | "settle", (int(worker), *_)):
                await self.speak(worker, step)
            case Step("put" | "put urgent", (int(completion),)):
                known = self.state.store.acknowledged
                self.state = PROTOCOL.take(self.state, step)
                [label] = self.state.store.acknowledged - known
                urgent = step.name == "put urgent"
                await self.workers[label % 2].put(
                    changes(_name(completion), [label]), batch=f"b-{label}", urgent=urgent
                )
            case Step("withdraw", (int(completion), str(which))):
                await self.withdraw(completion, which)
                self.state = PROTOCOL.take(self.state, step)
            case _:
                await self.happen(step)
                self.state = PROTOCOL.take(self.state, step)

    async def happen(self, step: Step) -> None:
        """Let an event happen to the store that is no worker's call."""
        match step:
            case Step("tick"):
                await self.advance(PROTOCOL.tick)
            case Step("clock", (int(by),)):
                await self.advance(by)
            case Step("fall behind"):
                self.put_back = await self.backend.save()
            case Step("fail over"):
                assert self.put_back is not None
                await self.put_back()
            case Step("retry dead", (int(completion),)):
                revived = await self.workers[0].retry_dead(DeadSelection(completion_id=_name(completion)))
                assert revived.retried == len(self.state.store.dead[completion])

    async def withdraw(self, completion: int, which: str) -> None:
        """Withdraw changes, by their completion or their batch."""
        target = self.state.store.targets[completion]
        assert target is not None
        gone = withdrawn_of(target, which)
        selection = PendingSelection(completion_id=_name(completion))
        if which != "all":
            selection = PendingSelection(batch=f"b-{gone[0].label}")
        held = len(gone) if target.is_leased else 0
        assert await self.workers[0].withdraw(selection) == Withdrawn(len(gone) - held, held)

    async def speak(self, worker: int, step: Step) -> None:
        """Let a worker claim, or use an earlier claim of any age."""
        queue = self.workers[worker]
        match step:
            case Step("claim" | "claim urgent"):
                self.claims[worker] = await self.claim(worker, urgent=step.name == "claim urgent")
                completion = int(self.claims[worker].completion_id.removeprefix("c-"))
                step = Step(step.name, (worker, completion, len(self.claims[worker].changes)))
            case Step("extend"):
                lost = await queue.extend([self.claims[worker]], lease_seconds=1)
                assert bool(lost) is self.is_stale(worker)
            case Step("settle", (_, str(fate))):
                stale = await queue.settle([self.settlement(worker, fate)])
                assert bool(stale) is self.is_stale(worker)
        self.state = PROTOCOL.take(self.state, step)
        if step.name in {"claim", "claim urgent"}:
            await self.advance(PROTOCOL.instant)
            hand = self.state.hands[worker]
            assert hand is not None
            assert labels(self.claims[worker]) == [str(change.label) for change in hand.changes]
            assert self.claims[worker].lease == hand.lease + self.now_us

    async def claim(self, worker: int, *, urgent: bool) -> Claim:
        """Claim; of several that are due since the same moment, a store may give any."""
        place: Place = "urgent" if urgent else "oldest"
        [claimed] = await self.workers[worker].claim(1, lease_seconds=1, owner=f"worker-{worker}", place=place)
        claimable = PROTOCOL.claimable(self.state.store, urgent=urgent)
        assert claimed.completion_id in [_name(completion) for completion in claimable]
        return claimed

    def is_stale(self, worker: int) -> bool:
        return PROTOCOL.accepts(self.state, worker, Guard.SETTLE_MATCHES_LEASE) is None

    def settlement(self, worker: int, fate: str) -> Settlement:
        claimed, hand = self.claims[worker], self.state.hands[worker]
        assert hand is not None
        numbers = {int(label): each.number for label, each in zip(labels(claimed), claimed.changes, strict=True)}
        applied, dead = told(hand.changes, fate)
        return Settlement(
            claimed,
            applied=[numbers[change.label] for change in applied],
            dead=[Death(numbers[change.label], "rejected", 1) for change in dead],
            delay_seconds=1 if fate == "retry" else 0,
        )

    async def compare(self) -> None:
        """Check that the store holds what the model does, as far as calls show."""
        targets = [target for target in self.state.store.targets if target is not None]
        status = await self.workers[0].status()
        assert status.pending == _count(targets)
        assert status.in_flight == _count([each for each in targets if each.due > 0 and each.lease is not None])
        assert status.waiting == _count([each for each in targets if each.due > 0 and each.lease is None])
        assert status.dead == sum(map(len, self.state.store.dead))
        due_seconds = [target.due / _US_PER_SECOND for target in targets]
        for worker in self.workers:
            assert await worker.next_due_seconds() == (pytest.approx(min(due_seconds)) if due_seconds else None)
            if not PROTOCOL.claimable(self.state.store):
                assert await worker.claim(1, lease_seconds=1, owner="nobody") == []
            if not PROTOCOL.claimable(self.state.store, urgent=True):
                assert await worker.claim(1, lease_seconds=1, owner="nobody", place="urgent") == []

    async def end(self) -> None:
        """Compare the whole content."""
        for completion, dead in enumerate(self.state.store.dead):
            found = await letters(self.workers[0], DeadSelection(completion_id=_name(completion)))
            assert [int(letter.metadata.partition(':"')[2].rstrip('"}')) for letter in found] == list(dead)
        for name in ("claim", "claim urgent"):
            while PROTOCOL.claimable(self.state.store, urgent=name == "claim urgent"):
                await self.take(Step(name, (0,)))
                await self.take(Step("settle", (0, "applied")))


def _name(completion: int) -> str:
    return f"c-{completion}"


def _count(targets: list[Target]) -> int:
    return sum(len(target.changes) for target in targets)


@asynccontextmanager
async def _opened(backend: Backend) -> AsyncIterator[list[Store]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(backend.another()) for _ in range(PROTOCOL.workers)]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("store", sorted(BACKENDS))
async def test_a_store_does_what_the_model_does(store: str, seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    met: list[str] = []
    async with BACKENDS[store](tmp_path) as backend:
        walk = Walk(backend, [])
        while len(met) < STEPS:
            async with _opened(backend) as walk.workers:
                while len(met) < STEPS:
                    await walk.compare()
                    steps = list(PROTOCOL.steps_of(walk.state))
                    [step] = dice.choices(steps, [WEIGHTS.get(step.name, 1) for step in steps])
                    await walk.take(step)
                    met.append(step.name)
                    if step.name == "fail over":  # ends all connections
                        break
        async with _opened(backend) as walk.workers:
            await walk.end()
    assert set(met) == KINDS
