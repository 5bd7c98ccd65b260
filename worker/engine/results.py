"""The interface of what keeps outcomes besides the log, as the recorder uses it."""

from collections.abc import Sequence
from typing import Protocol

from worker.engine.outcome import Outcome


class ResultsLost(Exception):
    """The results cannot be written any more. The message is one sentence that says where and why."""


class Results(Protocol):
    """Keeps the outcomes of changes. `worker.results.ResultsWriter` keeps them in a file."""

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep these outcomes before they are settled. Once this returns, a killed process loses none of them.

        An outcome is written twice if its settlement fails or its lease is lost: the change numbers show that.

        Raises:
            ResultsLost: none of these is kept, and none will be from now on.
        """
