"""The dead letters of a queue in memory."""

import math
from collections import Counter

from worker.queue.base import Part, Stretch, last_number
from worker.queue.letters import DeadLetter, DeadSelection, LetterCount
from worker.queue.pending import Death, QueuedChange


class Letters:
    """Dead letters by number, oldest first."""

    def __init__(self) -> None:
        self.last = 0  # the number of the last one that came
        self._letters: dict[int, DeadLetter] = {}

    def __len__(self) -> int:
        return len(self._letters)

    def bury(self, change: QueuedChange, death: Death, *, now: float) -> None:
        """Keep the change as a letter."""
        _, reason, attempts, status, error, request_id = death.row()
        self.last += 1
        self._letters[self.last] = DeadLetter(
            self.last,
            change.completion_id,
            change.change_id,
            change.mode,
            change.metadata,
            change.enqueued_at,
            reason,
            status,
            error,
            request_id,
            attempts,
            died_at=now,
            as_of=change.as_of,
            batch=change.batch,
        )

    def remove(self, number: int) -> None:
        """Delete one letter."""
        del self._letters[number]

    def selected(self, stretch: Stretch, *, now: float) -> list[DeadLetter]:
        """Return the matching letters of the stretch."""
        selection = stretch.selection
        shortest, longest = selection.ages or (-math.inf, math.inf)
        letters = [
            letter
            for letter in self._letters.values()
            if stretch.after < letter.number <= stretch.until
            and (selection.numbers is None or letter.number in selection.numbers)
            and selection.completion_id in (None, letter.completion_id)
            and selection.reason in (None, letter.reason)
            and selection.batch in (None, letter.batch)
        ]
        return [letter for letter in letters[: stretch.most] if shortest <= now - letter.died_at <= longest]

    def purge(self, stretch: Stretch, *, now: float) -> Part[int]:
        """Delete the matching letters of the stretch."""
        looked_at = [number for number in self._letters if stretch.after < number <= stretch.until]
        letters = self.selected(stretch, now=now)
        for letter in letters:
            self.remove(letter.number)
        is_part = stretch.most is not None and len(looked_at) > stretch.most
        return Part(len(letters), looked_at[stretch.most - 1] if is_part and stretch.most else None, self.last)

    def reasons(self, until: int | None, *, now: float) -> dict[str, LetterCount]:
        """Count the letters by reason, up to this number."""
        letters = self.selected(Stretch(DeadSelection(), after=0, until=last_number(until)), now=now)
        newest = {letter.reason: letter.number for letter in letters}
        counts = Counter(letter.reason for letter in letters)
        return {reason: LetterCount(count, newest[reason]) for reason, count in counts.items()}


def revived(letter: DeadLetter) -> QueuedChange:
    """Return a letter's change in its stored form, without number and time."""
    return QueuedChange(
        0,
        letter.completion_id,
        letter.change_id,
        letter.mode,
        letter.metadata,
        0.0,
        as_of=letter.as_of,
        batch=letter.batch,
    )
