"""Short helpers of the queue's tests."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import msgspec
import pytest

from worker.changes import MetadataChange
from worker.queue import Claim, DeadLetter, DeadSelection, Death, Reason, Settlement, Store

# How a claim ends, and what an event does to a queue.
Ending = Callable[[Claim], Settlement]
Event = Callable[[Store], Awaitable[None]]

# Seconds, with a tolerance for stores whose clock moves while a test runs.
about = partial(pytest.approx, abs=0.9)

LEASE_SECONDS = 60.0
EVERY_LETTER = DeadSelection()


def change(completion_id: str, label: str = "x", *, change_id: str | None = None) -> MetadataChange:
    """Make a change that can be recognised by its label."""
    return MetadataChange(completion_id, {"label": label}, change_id=change_id)


def changes(completion_id: str, labels: Iterable[object]) -> list[MetadataChange]:
    return [change(completion_id, str(label)) for label in labels]


async def claim(queue: Store, limit: int = 100) -> list[Claim]:
    return await queue.claim(limit, lease_seconds=LEASE_SECONDS, owner="worker")


async def claim_one(queue: Store) -> Claim:
    [claimed] = await claim(queue)
    return claimed


def labels(claimed: Claim) -> list[str]:
    """The labels of the claim's changes, in order."""
    return [msgspec.json.decode(each.metadata)["label"] for each in claimed.changes]


def numbers(claimed: Claim) -> list[int]:
    return [each.number for each in claimed.changes]


def trials_of(claimed: Claim) -> dict[str, str | None]:
    """The trials of the claim's changes, by label."""
    return dict(zip(labels(claimed), [each.trials for each in claimed.changes], strict=True))


def finished(claimed: Claim) -> Settlement:
    """A settlement that applies all changes."""
    return Settlement(claimed, applied=numbers(claimed))


def died(claimed: Claim, reason: Reason = "rejected") -> Settlement:
    """A settlement that makes all changes dead letters."""
    return Settlement(claimed, dead=[Death(number, reason, attempts=1) for number in numbers(claimed)])


def failed(claimed: Claim) -> Settlement:
    """A settlement that leaves all changes to be tried again, with trials."""
    return Settlement(claimed, delay_seconds=5, trials=[(number, "failed") for number in numbers(claimed)])


async def bury(queue: Store, *dead: MetadataChange, reason: Reason = "rejected") -> None:
    """Make dead letters of these changes, and of all others that are due."""
    await queue.put(dead)
    for claimed in await claim(queue):
        assert await queue.settle([died(claimed, reason)]) == []


async def letters(queue: Store, selection: DeadSelection = EVERY_LETTER) -> list[DeadLetter]:
    return [letter async for letter in queue.dead_letters(selection)]


async def pending_labels(queue: Store) -> dict[str, list[str]]:
    """Claim all that is due, and return the labels by completion."""
    return {claimed.completion_id: labels(claimed) for claimed in await claim(queue)}
