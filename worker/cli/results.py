"""`--results FILE`: the result of each change, in a file for other programs."""

from collections.abc import Iterator
from contextlib import contextmanager

from config.settings import ConfigurationError
from worker.flags import Flag

TYPE_CHECKING = False  # type checkers know this name; a run without results imports nothing for them
if TYPE_CHECKING:
    from worker.results import Places, ResultsWriter

RESULTS = Flag("append one line of JSON for each finished change to this file", metavar="FILE", files=True)
WITH_VALUES = Flag("include the metadata before and after in the results, not only its keys")


@contextmanager
def results_to(
    path: str | None, *, with_values: bool, places: "Places | None" = None
) -> "Iterator[ResultsWriter | None]":
    """Open the run's results file, if one is wanted, and lock it.

    Args:
        places: the input positions of changes, if the run reads files.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    if path is None:
        if with_values:
            raise ConfigurationError("--with-values needs --results FILE")
        yield None
        return
    from worker.results import ResultsFile, ResultsWriter, UnusableResults  # noqa: PLC0415 -- see above

    try:
        file = ResultsFile(path)
    except UnusableResults as error:
        raise ConfigurationError(str(error)) from None
    with file:
        yield ResultsWriter(file, places=places, with_values=with_values)
