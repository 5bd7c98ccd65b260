"""An exhaustive search of the protocol's states; of states that differ only in names, it examines one."""

from dataclasses import dataclass
from itertools import permutations

from tests.queue.protocol.model import NOBODY, Broken, Change, Guard, Hand, Promise, Protocol, State, Step, Store

_NONE, _SOMEBODYS = -1_000, -999
_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search.

    Args:
        states: how many there are, or were examined before a promise was broken.
        broken: that promise; None if all hold.
        trace: a shortest way there.
    """

    states: int
    broken: Promise | None = None
    trace: tuple[Step, ...] = ()


def search(protocol: Protocol, *, most_states: int = 1_000_000) -> Found:
    """Visit all states that can be reached, the nearest first, until a promise is broken."""
    start = protocol.start()
    came_from: dict[State, tuple[State, Step] | None] = {start: None}
    met = {start}
    seen = {_key(start, protocol)}
    layer = [start]
    while layer:
        following = []
        for state in layer:
            for step in protocol.steps_of(state):
                try:
                    after = protocol.take(state, step)
                    if after in met:
                        continue
                    met.add(after)
                    protocol.check(after)
                    key = _key(after, protocol)
                except Broken as broken:
                    return Found(len(seen), broken.promise, (*_way_to(state, came_from), step))
                if key in seen:
                    continue
                seen.add(key)
                came_from[after] = state, step
                following.append(after)
        assert len(seen) < most_states, "there is no end to it"
        layer = following
    return Found(len(seen))


def _way_to(state: State, came_from: dict[State, tuple[State, Step] | None]) -> list[Step]:
    steps = []
    while (before := came_from[state]) is not None:
        state, step = before
        steps.append(step)
    return steps[::-1]


def _key(state: State, protocol: Protocol) -> _Key:
    """A key that equivalent states share.

    Such states differ only in what no later step can see. That is names of workers, completions and changes; how long a
    target has been due; and what has ended. Lease numbers of the past are compared but never given out, and so are
    numbers of changes of the past.

    Raises:
        Broken: the store accepts a call with an unknown lease.
    """
    stores = [state.store] if state.replica is None else [state.store, state.replica]
    live = {target.lease for store in stores for target in store.targets if target is not None}
    in_hand: dict[int, Hand] = {}
    for worker, hand in enumerate(state.hands):
        if hand is None:
            continue
        if hand.lease in live or hand.believed or not _is_past(hand.lease, state, protocol) or protocol.without:
            in_hand[worker] = hand
        else:  # for all its later calls
            protocol.accepts(state, worker, Guard.SETTLE_MATCHES_LEASE)
    names = _Names(state, stores, in_hand, protocol)
    retries = _NONE if state.retries is None else state.retries
    budgets = (state.puts, retries, state.steps, state.failovers, state.withdrawals, state.pauses)
    looks = [names.look_of(completion) for completion in range(len(state.store.targets))]
    hand_looks = [names.look_of_hand(worker, looks) for worker in range(len(state.hands))]
    return min(
        (budgets, *names.encoded(workers, completions))
        for workers in _orders(hand_looks)
        for completions in _orders(looks)
    )


def _orders(looks: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Every order of equal-looking items with rising looks: mostly one."""
    rising = sorted(looks)
    return [order for order in permutations(range(len(looks))) if [looks[at] for at in order] == rising]


def _is_past(lease: int, state: State, protocol: Protocol) -> bool:
    """Whether no claim will ever get this number, even if the store is replaced and its clock set back."""
    store = state.replica or state.store
    if not protocol.has(Guard.NUMBER_FOLLOWS_CLOCK):
        return False
    return lease <= store.last_lease or lease < -state.steps * protocol.leap


class _Names:
    """Numbers for what has no number, or one that does not matter."""

    def __init__(self, state: State, stores: list[Store], in_hand: dict[int, Hand], protocol: Protocol) -> None:
        self._state = state
        self._stores = stores
        self._in_hand = in_hand
        self._protocol = protocol
        self._next = stores[-1].next_number
        self._last = -1 if protocol.has(Guard.NUMBER_FOLLOWS_CLOCK) else stores[-1].last_lease
        targets = [target for store in stores for target in store.targets if target is not None]
        groups = [*(target.changes for target in targets), *(hand.changes for hand in in_hand.values())]
        old = sorted({change.number for changes in groups for change in changes if change.number < self._next})
        self._numbers = {number: at - len(old) for at, number in enumerate(old)}
        self._known = {hand.lease for hand in in_hand.values()}
        self._leases: dict[int, int] = {}
        self._labels: dict[int, int] = {}

    def look_of(self, completion: int) -> tuple[int, ...]:
        """A completion without names."""
        look: list[int] = []
        for store in self._stores:
            target = store.targets[completion]
            look.append(len(store.dead[completion]) if self._state.retries != 0 else 0)
            if target is not None:
                look += len(target.changes), self._ticks(target.due), target.lease is None
        return tuple(look)

    def look_of_hand(self, worker: int, looks: list[tuple[int, ...]]) -> tuple[int, ...]:
        """A worker's claim without names."""
        hand = self._in_hand.get(worker)
        return () if hand is None else (len(hand.changes), self._ticks(hand.believed), *looks[hand.completion])

    def encoded(self, workers: tuple[int, ...], completions: tuple[int, ...]) -> _Key:
        """The whole state, with workers and completions in this order."""
        self._leases, self._labels = {}, {}
        encoded = [self._store(store, workers, completions) for store in self._stores]
        hands: list[_Key] = []
        for worker in workers:
            if hand := self._in_hand.get(worker):
                lease = self._lease(hand.lease)
                changes, believed = self._changes(hand.changes), self._ticks(hand.believed)
                gone = tuple([each.label in store.withdrawn for store in self._stores for each in hand.changes])
                hands.append((completions.index(hand.completion), lease, changes, believed, gone))
            else:
                hands.append(())
        return (*encoded, *hands)

    def _store(self, store: Store, workers: tuple[int, ...], completions: tuple[int, ...]) -> _Key:
        encoded: list[object] = []
        for completion in completions:
            target = store.targets[completion]
            # Letters that will not be retried are accounted for already.
            dead = tuple([self._label(label) for label in store.dead[completion]]) if self._state.retries != 0 else ()
            if target is None:
                encoded.append((dead,))
            else:
                holder = workers.index(target.holder) if target.holder in self._in_hand else NOBODY
                due, lease = self._ticks(target.due), self._lease(target.lease)
                encoded.append((dead, due, lease, holder, self._changes(target.changes)))
        return (*encoded, store.paused, max(store.last_lease - self._last, 0), store.next_number - self._next)

    def _changes(self, changes: tuple[Change, ...]) -> _Key:
        return tuple(
            [
                (
                    self._numbers.get(change.number, change.number - self._next),
                    self._label(change.label),
                    change.urgent,
                )
                for change in changes
            ]
        )

    def _ticks(self, time: int) -> int:
        """How many ticks have to pass: there are never enough claims to make one."""
        return max(0, -(-time // self._protocol.tick))

    def _label(self, label: int) -> int:
        return self._labels.setdefault(label, len(self._labels))

    def _lease(self, lease: int | None) -> int:
        if lease is None:
            return _NONE
        if not _is_past(lease, self._state, self._protocol):
            return lease - self._last
        if lease not in self._known:
            return _SOMEBODYS
        return self._leases.setdefault(lease, -2 - len(self._leases))
