"""Convert outcomes to lines and append them to the file."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from worker.engine.outcome import Outcome
from worker.engine.results import ResultsLost
from worker.results.file import ResultsFile
from worker.results.line import results_of, text_of
from worker.results.places import Places
from worker.threads import NoThread, in_thread


class ResultsWriter:
    """Writes the results of a run; see `worker.engine.results.Results`.

    Args:
        places: the input positions of changes; None if the run read no file.
        with_values: whether lines contain metadata values, or only keys.
        clock: the time in the lines.
    """

    def __init__(
        self,
        file: ResultsFile,
        *,
        places: Places | None = None,
        with_values: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._file = file
        self._places = places
        self._with_values = with_values
        self._clock = clock

    def __repr__(self) -> str:
        return f"<ResultsWriter {self._file.path}>"

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append a line for each ended change, all in one write, in a thread because disks may be slow.

        Raises:
            ResultsLost: none of them is in the file.
        """
        at = self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        results = list(results_of(outcomes, at, places=self._places, with_values=self._with_values))
        if not results:
            return
        try:
            await in_thread(self._file.append, text_of(results))
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except NoThread as error:
            reason = str(error)
        else:
            return
        raise ResultsLost(f"{self._file.path}: results cannot be written there: {reason}")
