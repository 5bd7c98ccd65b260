"""`--results FILE`: what became of each change, in a file that other programs can join."""

from collections.abc import Iterator
from contextlib import contextmanager

from config.settings import ConfigurationError
from worker.flags import Flag

TYPE_CHECKING = False  # as type checkers understand it: a run without results imports nothing for them
if TYPE_CHECKING:
    from worker.results import Places, ResultsWriter

RESULTS = Flag("append a line of JSON for each change that has ended to this file", metavar="FILE", files=True)
WITH_VALUES = Flag("have the results show the metadata before and after, not only its keys")


@contextmanager
def results_to(
    path: str | None, *, with_values: bool, places: "Places | None" = None
) -> "Iterator[ResultsWriter | None]":
    """Open the file for a run's results, where one is wanted; nobody else can write to it meanwhile.

    Args:
        places: where changes are read, if they are.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if path is None:
        if with_values:
            raise ConfigurationError("--with-values is about --results FILE, which is not given")
        yield None
        return
    from worker.results import ResultsFile, ResultsWriter, UnusableResults  # noqa: PLC0415 -- see above

    try:
        file = ResultsFile(path)
    except UnusableResults as error:
        raise ConfigurationError(str(error)) from None
    with file:
        yield ResultsWriter(file, places=places, with_values=with_values)
