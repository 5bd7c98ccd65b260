"""A model of the queue's protocol: the states of store and workers, and every possible step.

Times are relative to now, by the store's clock. So is a lease's number, since it follows that clock. A step never
changes a state: it makes a new one. `Store` has what a store really keeps, and also `acknowledged` and `ended`, for the
checks. `holder` is the worker that a lease was given to; a store knows only the lease's number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeVar

T = TypeVar("T")

NOBODY = -1
FIRST_LEASE = -(10**9)  # far in the past, as the number of a queue that has given out no lease


class Guard(Enum):
    """The guards of the protocol. A test removes one, to see that the search finds it missing."""

    SETTLE_MATCHES_LEASE = "a settlement counts only under the lease that holds"
    EXTEND_MATCHES_LEASE = "an extension counts only under the lease that holds"
    SETTLE_ENDS_LEASE = "a settlement ends the lease"
    CLAIM_TAKES_WHAT_IS_DUE = "a claim takes nothing that is leased, or waits"
    CLAIM_IN_ORDER = "a claim carries the oldest changes"
    REMOVE_WHAT_WAS_CLAIMED = "a settlement removes what its claim carried, and nothing else"
    DEAD_ARE_KEPT = "what dies becomes a letter before it goes"
    RETRIED_IS_NEWEST = "a letter that is retried comes after all that is pending"
    NUMBER_FOLLOWS_CLOCK = "a lease's number is never less than the time"
    WITHDRAWAL_LEAVES_LEASED = "a withdrawal takes nothing that is leased"
    WITHDRAWAL_ENDS_LEASE = "a withdrawal ends a lease that ran out"
    URGENT_APART = "the usual places leave urgent ones alone"
    PAUSE_IS_LOOKED_FOR = "a worker looks for a pause before it claims"


class Promise(Enum):
    """The promises of the protocol."""

    NOTHING_LOST = "what was acknowledged, and has not been lost by a failover, is pending, dead or applied"
    ONCE = "a change is there once, and was put"
    ORDER = "no change is applied before an older one of its completion"
    ONE_WRITER = "a completion has one writer"
    FENCE = "a worker whose lease is another's is not listened to"
    NEW_NUMBERS = "no lease number is given out twice"
    SEEN = "no change goes on the word of a worker that never saw it"
    WITHDRAWN = "nothing that was withdrawn is applied, or may be, from then on"
    URGENT_FIRST = "an urgent completion waits for no usual one"
    PAUSED = "while it is paused nothing is claimed"


class Change(NamedTuple):
    """A pending change.

    Args:
        number: the store's number; given out again after a failover that loses it.
        label: its identity.
        urgent: whether it was put as urgent.
    """

    number: int
    label: int
    urgent: bool = False


class Target(NamedTuple):
    """A completion with pending changes; without a lease, `lease` is None."""

    changes: tuple[Change, ...]
    due: int
    lease: int | None = None
    holder: int = NOBODY

    @property
    def is_urgent(self) -> bool:
        """Whether one of the changes is urgent."""
        return any(change.urgent for change in self.changes)

    @property
    def is_leased(self) -> bool:
        """Whether a lease runs."""
        return self.lease is not None and self.due > 0


class Store(NamedTuple):
    """The content of the store, by completion.

    Args:
        dead: labels, oldest letter first.
        last_lease, next_number: its counters.
        acknowledged: labels of all changes that it has stored.
        ended: labels of the changes that a worker has reported as applied, after it saw them.
        withdrawn: labels of withdrawn changes.
        paused: whether it is paused.
    """

    targets: tuple[Target | None, ...]
    dead: tuple[tuple[int, ...], ...]
    last_lease: int = FIRST_LEASE
    next_number: int = 0
    acknowledged: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    withdrawn: frozenset[int] = frozenset()
    paused: bool = False


class Hand(NamedTuple):
    """A claim that a worker has or had: the worker may use it at any time.

    Args:
        believed: for how long the worker's own clock says that the lease holds; 0 if that is over, or not promised. It
            is not promised after the store's clock was set forward, or after a failover.
    """

    completion: int
    lease: int
    changes: tuple[Change, ...]
    believed: int


class State(NamedTuple):
    """The whole state.

    Args:
        replica: the last replicated content, which is left after a failover.
        puts, retries, steps, failovers, withdrawals, pauses: how many are still to come; retries may be None for any
            number.
    """

    store: Store
    hands: tuple[Hand | None, ...]
    replica: Store | None
    puts: int
    retries: int | None
    steps: int
    failovers: int
    withdrawals: int = 0
    pauses: int = 0


class Step(NamedTuple):
    """An event: its name, and what it is about."""

    name: str
    args: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.args))})"


class Broken(Exception):
    """A broken promise."""

    def __init__(self, promise: Promise) -> None:
        super().__init__(promise.value)
        self.promise = promise


FATES = ("applied", "first", "retry", "dead", "dead and applied")  # of a claim


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules.

    Args:
        without: removed guards.
        promises: the promises to check.
        tick: how far the clock moves at a time: the length of a lease, and of the wait for a retry.
        instant: the least that it moves between two claims.
        leap: how far it is set forward or back.
        any_due: whether a claim may take anything that is due, or only what is due first.
        urgent: whether changes may be urgent.
        clock_is_ahead: whether, from a failover on, the clock is ahead of all lost numbers.
    """

    without: frozenset[Guard] = frozenset()
    promises: frozenset[Promise] = frozenset(Promise)
    completions: int = 2
    workers: int = 2
    puts: int = 3
    retries: int | None = 1
    steps: int = 1
    failovers: int = 1
    withdrawals: int = 0
    pauses: int = 0
    urgent: bool = False
    tick: int = 1_000
    instant: int = 1
    leap: int = 1_000
    fates: tuple[str, ...] = FATES
    any_due: bool = True
    clock_is_ahead: bool = True

    def start(self) -> State:
        """An empty queue."""
        store = Store((None,) * self.completions, ((),) * self.completions)
        budgets = (self.puts, self.retries, self.steps, self.failovers, self.withdrawals, self.pauses)
        return State(store, (None,) * self.workers, None, *budgets)

    def has(self, guard: Guard) -> bool:
        return guard not in self.without

    def breaks(self, promise: Promise) -> None:
        if promise in self.promises:
            raise Broken(promise)

    def check(self, state: State) -> None:
        """Check the promises about every state.

        Raises:
            Broken: one does not hold.
        """
        store = state.store
        labels = [label for dead in store.dead for label in dead]
        labels += [*store.ended, *store.withdrawn]
        for target in store.targets:
            if target is not None:
                labels += [change.label for change in target.changes]
                if not target.changes or list(target.changes) != sorted(target.changes):
                    self.breaks(Promise.ORDER)
        if not store.acknowledged.issubset(labels):
            self.breaks(Promise.NOTHING_LOST)
        if len(labels) > len(store.acknowledged):
            self.breaks(Promise.ONCE)

    def steps_of(self, state: State) -> Iterator[Step]:  # noqa: C901 -- a branch for each kind of step
        """Every possible step."""
        store = state.store
        yield Step("tick")
        if state.puts:
            yield from (Step("put", (completion,)) for completion in range(self.completions))
            if self.urgent:
                yield from (Step("put urgent", (completion,)) for completion in range(self.completions))
        if state.withdrawals:
            yield from self._withdrawals_of(store)
        if store.paused:
            yield Step("resume")
        elif state.pauses:
            yield Step("pause")
        if state.retries != 0:
            yield from (Step("retry dead", (completion,)) for completion, dead in enumerate(store.dead) if dead)
        if state.steps:
            yield Step("clock", (self.leap,))
            if self._may_be_met(state, store, self.leap):
                yield Step("clock", (-self.leap,))
        if state.failovers and state.replica is None:
            yield Step("fall behind")
        if state.replica is not None and self._may_be_met(state, state.replica, 0):
            yield Step("fail over")
        for worker, hand in enumerate(state.hands):
            yield from self._claims_of(store, worker, "claim")
            yield from self._claims_of(store, worker, "claim urgent")
            if hand is not None:
                yield Step("extend", (worker,))
                several = len(hand.changes) > 1
                yield from (
                    Step("settle", (worker, fate))
                    for fate in self.fates
                    if several or fate in {"applied", "retry", "dead"}
                )

    def _claims_of(self, store: Store, worker: int, name: str) -> Iterator[Step]:
        if store.paused and self.has(Guard.PAUSE_IS_LOOKED_FOR):
            return
        for completion in self.claimable(store, urgent=name == "claim urgent"):
            target = store.targets[completion]
            assert target is not None
            carried = {1, len(target.changes)} if self.any_due else {len(target.changes)}
            yield from (Step(name, (worker, completion, count)) for count in sorted(carried))

    @staticmethod
    def _withdrawals_of(store: Store) -> Iterator[Step]:
        for completion, target in enumerate(store.targets):
            if target is not None:
                yield Step("withdraw", (completion, "all"))
                if len(target.changes) > 1:
                    yield from (Step("withdraw", (completion, which)) for which in ("first", "last"))

    def _may_be_met(self, state: State, store: Store, later: int) -> bool:
        """Whether this store's clock, set back by so much, is ahead of all leases held that it does not know."""
        last = max(store.last_lease, -later - 1)
        return not self.clock_is_ahead or all(hand is None or hand.lease <= last for hand in state.hands)

    def claimable(self, store: Store, *, urgent: bool = False) -> list[int]:
        """The completions that the next claim may get, urgent ones or others."""
        apart = self.has(Guard.URGENT_APART)
        found = [
            (target.due, at)
            for at, target in enumerate(store.targets)
            if target is not None and (target.is_urgent is urgent or not (apart or urgent))
        ]
        if self.has(Guard.CLAIM_TAKES_WHAT_IS_DUE):
            found = [(due, at) for due, at in found if due <= 0]
        first = min(found, default=(0, 0))[0]
        return [at for due, at in found if self.any_due or due == first]

    def take(self, state: State, step: Step) -> State:  # noqa: C901, PLR0912 -- likewise
        """Take the step.

        Raises:
            Broken: it breaks a promise.
        """
        match step:
            case Step("tick"):
                after = self._shifted(state, self.tick, elapsed=self.tick)
            case Step("clock", (int(by),)):
                after = self._shifted(state, by, elapsed=0)._replace(steps=state.steps - 1)
            case Step("put" | "put urgent", (int(completion),)):
                after = _put(state, completion, urgent=step.name == "put urgent")
            case Step("withdraw", (int(completion), str(which))):
                after = self._withdrawn(state, completion, which)
            case Step("pause"):
                after = state._replace(store=state.store._replace(paused=True), pauses=state.pauses - 1)
            case Step("resume"):
                after = state._replace(store=state.store._replace(paused=False))
            case Step("retry dead", (int(completion),)):
                after = self._retried(state, completion)
            case Step("fall behind"):
                after = state._replace(replica=state.store)
            case Step("fail over"):
                after = _failed_over(state)
            case Step("claim" | "claim urgent", (int(worker), int(completion), int(count))):
                target = state.store.targets[completion]
                if step.name == "claim" and target is not None and target.is_urgent:
                    self.breaks(Promise.URGENT_FIRST)
                if state.store.paused:
                    self.breaks(Promise.PAUSED)
                after = self._claimed(state, worker, completion, count)
            case Step("extend", (int(worker),)):
                after = self._extended(state, worker)
            case Step("settle", (int(worker), str(fate))):
                after = self._settled(state, worker, fate)
            case _:
                raise AssertionError(step)
        return after

    def accepts(self, state: State, worker: int, guard: Guard) -> Target | None:
        """The target that the worker's call is about, if the store accepts it.

        Raises:
            Broken: the store accepts it, and the lease is not the worker's.
        """
        hand = state.hands[worker]
        assert hand is not None
        target = state.store.targets[hand.completion]
        if target is None or (self.has(guard) and target.lease != hand.lease):
            return None
        if target.holder != worker:
            self.breaks(Promise.FENCE)
        return target

    def _shifted(self, state: State, by: int, *, elapsed: int) -> State:
        """Move the store's clock, and the workers' clocks by the time that really passed."""
        hands = tuple(
            hand
            and hand._replace(lease=hand.lease - by, believed=0 if by > elapsed else max(0, hand.believed - elapsed))
            for hand in state.hands
        )
        replica = state.replica and _shifted(state.replica, by)
        return state._replace(store=_shifted(state.store, by), hands=hands, replica=replica)

    def _retried(self, state: State, completion: int) -> State:
        dead = state.store.dead[completion]
        store = state.store._replace(dead=_with(state.store.dead, completion, ()))
        for label in dead:
            store = _appended(store, completion, label, at_once=not self.has(Guard.RETRIED_IS_NEWEST))
        return state._replace(store=store, retries=state.retries and state.retries - 1)

    def _withdrawn(self, state: State, completion: int, which: str) -> State:
        store, target = state.store, state.store.targets[completion]
        assert target is not None
        state = state._replace(withdrawals=state.withdrawals - 1)
        if target.is_leased and self.has(Guard.WITHDRAWAL_LEAVES_LEASED):
            return state
        gone = withdrawn_of(target, which)
        for hand in state.hands:
            if hand is not None and hand.believed and hand.completion == completion and {*hand.changes} & {*gone}:
                self.breaks(Promise.WITHDRAWN)
        left = tuple(change for change in target.changes if change not in gone)
        kept = target._replace(changes=left)
        if self.has(Guard.WITHDRAWAL_ENDS_LEASE):
            kept = kept._replace(lease=None, holder=NOBODY)
        targets = _with(store.targets, completion, kept if left else None)
        withdrawn = store.withdrawn | {change.label for change in gone}
        return state._replace(store=store._replace(targets=targets, withdrawn=withdrawn))

    def _claimed(self, state: State, worker: int, completion: int, count: int) -> State:
        store = state.store
        target = store.targets[completion]
        assert target is not None
        for other, hand in enumerate(state.hands):
            if other != worker and hand is not None and hand.completion == completion and hand.believed > 0:
                self.breaks(Promise.ONE_WRITER)
        lease = store.last_lease + 1
        if self.has(Guard.NUMBER_FOLLOWS_CLOCK):
            lease = max(lease, 0)
        if any(hand is not None and hand.lease == lease for hand in state.hands):
            self.breaks(Promise.NEW_NUMBERS)
        state = _let_go(state, worker)
        store = state.store
        changes = target.changes[:count] if self.has(Guard.CLAIM_IN_ORDER) else target.changes[-count:]
        leased = target._replace(due=self.tick, lease=lease, holder=worker)
        store = store._replace(targets=_with(store.targets, completion, leased), last_lease=lease)
        hand = Hand(completion, lease, changes, self.tick)
        state = state._replace(store=store, hands=_with(state.hands, worker, hand))
        return self._shifted(state, self.instant, elapsed=self.instant)

    def _extended(self, state: State, worker: int) -> State:
        target = self.accepts(state, worker, Guard.EXTEND_MATCHES_LEASE)
        hand = state.hands[worker]
        assert hand is not None
        if target is None:
            return state._replace(hands=_with(state.hands, worker, hand._replace(believed=0)))
        targets = _with(state.store.targets, hand.completion, target._replace(due=self.tick))
        hands = _with(state.hands, worker, hand._replace(believed=self.tick))
        return state._replace(store=state.store._replace(targets=targets), hands=hands)

    def _settled(self, state: State, worker: int, fate: str) -> State:
        """Carry out a settlement by any worker. The worker keeps the claim, to settle it again later."""
        target = self.accepts(state, worker, Guard.SETTLE_MATCHES_LEASE)
        hand = state.hands[worker]
        assert hand is not None
        state = state._replace(hands=_with(state.hands, worker, hand._replace(believed=0)))
        if target is None:
            return state
        applied, dead = told(hand.changes, fate)
        if any(change.label in state.store.withdrawn for change in applied):
            self.breaks(Promise.WITHDRAWN)
        gone = {change.number for change in applied + dead}
        if not self.has(Guard.REMOVE_WHAT_WAS_CLAIMED):
            gone |= {change.number for change in target.changes} if fate == "applied" else set()
        left = tuple(change for change in target.changes if change.number not in gone)
        removed = [change for change in target.changes if change.number in gone]
        if any(change not in hand.changes for change in removed):
            self.breaks(Promise.SEEN)
        if any(older.number < change.number for change in applied for older in left):
            self.breaks(Promise.ORDER)
        store = state.store
        if self.has(Guard.DEAD_ARE_KEPT):
            letters = store.dead[hand.completion] + tuple(change.label for change in removed if change in dead)
            store = store._replace(dead=_with(store.dead, hand.completion, letters))
        store = store._replace(ended=store.ended | {change.label for change in removed if change in applied})
        kept = Target(left, self.tick if fate == "retry" else 0)
        if not self.has(Guard.SETTLE_ENDS_LEASE):
            kept = kept._replace(lease=target.lease)
        return state._replace(
            store=store._replace(targets=_with(store.targets, hand.completion, kept if left else None))
        )


def withdrawn_of(target: Target, which: str) -> tuple[Change, ...]:
    """The changes that this withdraws, while no lease runs."""
    return {"all": target.changes, "first": target.changes[:1], "last": target.changes[-1:]}[which]


def told(changes: tuple[Change, ...], fate: str) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """The changes that such a settlement applies, and those that it makes dead."""
    match fate:
        case "applied":
            return changes, ()
        case "first":
            return changes[:1], ()
        case "dead":
            return (), changes
        case "dead and applied":
            return changes[1:], changes[:1]
        case _:
            return (), ()


def _put(state: State, completion: int, *, urgent: bool) -> State:
    label = _new_label(state)
    store = _appended(state.store, completion, label, urgent=urgent)
    return state._replace(store=store._replace(acknowledged=store.acknowledged | {label}), puts=state.puts - 1)


def _failed_over(state: State) -> State:
    """Promote the replica: what it has not received is lost, and the workers' beliefs no longer hold."""
    assert state.replica is not None
    hands = tuple(hand and hand._replace(believed=0) for hand in state.hands)
    return state._replace(store=state.replica, replica=None, hands=hands, failovers=state.failovers - 1)


def _appended(store: Store, completion: int, label: int, *, at_once: bool = False, urgent: bool = False) -> Store:
    target = store.targets[completion] or Target((), 0)
    change = Change(store.next_number, label, urgent)
    changes = (change, *target.changes) if at_once else (*target.changes, change)
    targets = _with(store.targets, completion, target._replace(changes=changes))
    return store._replace(targets=targets, next_number=store.next_number + 1)


def _new_label(state: State) -> int:
    """The lowest unknown number."""
    known = {change.label for hand in state.hands if hand is not None for change in hand.changes}
    known |= state.store.acknowledged
    if state.replica is not None:
        known |= state.replica.acknowledged
    return next(label for label in range(len(known) + 1) if label not in known)


def _let_go(state: State, worker: int) -> State:
    """Let the worker forget its claim, as in a crash: it makes no further call."""

    def forgotten(store: Store) -> Store:
        targets = tuple(
            target._replace(holder=NOBODY) if target is not None and target.holder == worker else target
            for target in store.targets
        )
        return store._replace(targets=targets)

    if state.hands[worker] is None:
        return state
    return state._replace(store=forgotten(state.store), replica=state.replica and forgotten(state.replica))


def _shifted(store: Store, by: int) -> Store:
    targets = tuple(
        target and target._replace(due=target.due - by, lease=None if target.lease is None else target.lease - by)
        for target in store.targets
    )
    return store._replace(targets=targets, last_lease=store.last_lease - by)


def _with(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])
