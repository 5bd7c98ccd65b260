"""No reachable state breaks a promise; and the search finds the removal of each guard."""

import gc
from collections.abc import Iterator

import pytest

from tests.queue.protocol.model import Broken, Guard, Promise, Protocol, Step
from tests.queue.protocol.search import search

# Two completions, two workers and three changes; two changes in the larger searches. All at once would be a million
# states.
WHOLE = {
    "no failover": Protocol(failovers=0, steps=2, retries=None),
    "a failover": Protocol(steps=0, retries=0),
    "a failover, and a clock that is put forward or back": Protocol(puts=2, retries=0),
    "a failover, and letters that are retried": Protocol(puts=2, steps=0),
    "changes that are withdrawn": Protocol(failovers=0, retries=0, withdrawals=2),
    "changes that are withdrawn, and a failover": Protocol(puts=2, steps=0, retries=0, withdrawals=1),
    "urgent changes, withdrawn or not": Protocol(failovers=0, steps=0, retries=0, urgent=True, withdrawals=1),
    "a pause": Protocol(failovers=0, steps=0, retries=0, pauses=1),
}
MISSED = {
    Guard.SETTLE_MATCHES_LEASE: Promise.FENCE,
    Guard.EXTEND_MATCHES_LEASE: Promise.FENCE,
    Guard.SETTLE_ENDS_LEASE: Promise.FENCE,
    Guard.CLAIM_TAKES_WHAT_IS_DUE: Promise.ONE_WRITER,
    Guard.CLAIM_IN_ORDER: Promise.ORDER,
    Guard.REMOVE_WHAT_WAS_CLAIMED: Promise.SEEN,
    Guard.DEAD_ARE_KEPT: Promise.NOTHING_LOST,
    Guard.RETRIED_IS_NEWEST: Promise.ORDER,
    Guard.NUMBER_FOLLOWS_CLOCK: Promise.NEW_NUMBERS,
    Guard.WITHDRAWAL_LEAVES_LEASED: Promise.WITHDRAWN,
    Guard.WITHDRAWAL_ENDS_LEASE: Promise.WITHDRAWN,
    Guard.URGENT_APART: Promise.URGENT_FIRST,
    Guard.PAUSE_IS_LOOKED_FOR: Promise.PAUSED,
}


BEFORE = {*list(Guard)[: list(Guard).index(Guard.WITHDRAWAL_LEAVES_LEASED)]}


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """States refer to no state in a circle; to look at all of them again and again takes a fifth of a search."""
    gc.disable()
    yield
    gc.enable()


def replay(protocol: Protocol, trace: tuple[Step, ...]) -> None:
    """Take these steps."""
    state = protocol.start()
    for step in trace:
        state = protocol.take(state, step)
        protocol.check(state)


@pytest.mark.parametrize("what", WHOLE)
def test_no_step_from_any_state_breaks_a_promise(what: str) -> None:
    found = search(WHOLE[what])

    assert found.broken is None, [str(step) for step in found.trace]
    assert found.states > 600


@pytest.mark.parametrize("guard", Guard)
def test_a_guard_that_is_taken_out_is_missed(guard: Guard) -> None:
    protocol = Protocol(without=frozenset({guard}), withdrawals=1, pauses=1, urgent=True)
    if guard in BEFORE:  # these need none of that
        protocol = Protocol(without=frozenset({guard}))
    found = search(protocol)

    assert found.broken is MISSED[guard]
    with pytest.raises(Broken, match=MISSED[guard].value):
        replay(protocol, found.trace)


@pytest.mark.parametrize("promise", [Promise.NEW_NUMBERS, Promise.FENCE, Promise.SEEN])
def test_without_the_clock_in_the_numbers_of_leases_a_failover_breaks_all_fences(promise: Promise) -> None:
    protocol = Protocol(without=frozenset({Guard.NUMBER_FOLLOWS_CLOCK}), promises=frozenset({promise}), steps=0)
    found = search(protocol)

    assert found.broken is promise
    assert "fail over" in [step.name for step in found.trace]


def test_a_failover_to_a_clock_that_is_behind_the_numbers_it_lost_is_beyond_what_is_promised() -> None:
    found = search(Protocol(puts=2, retries=0, clock_is_ahead=False))

    assert found.broken is Promise.NEW_NUMBERS
    assert {"clock", "fail over"} <= {step.name for step in found.trace}
