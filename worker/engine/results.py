"""The way out for outcomes, besides the log: what the recorder needs of it."""

from collections.abc import Sequence
from typing import Protocol

from worker.engine.outcome import Outcome


class ResultsLost(Exception):
    """The results cannot be written any more; the message is one sentence that names where, and why."""


class Results(Protocol):
    """Keeps what became of changes; `worker.results.ResultsWriter` keeps it in a file."""

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep these before they are settled: once this returns, the end of this process loses none of them.

        What is written twice, since a settlement failed or its lease was lost, carries the same change numbers.

        Raises:
            ResultsLost: none of them is kept, and nothing will be from here on.
        """
