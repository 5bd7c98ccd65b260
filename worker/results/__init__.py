"""Results of a run, as a file that other programs read: a line of JSON for each change that has left the queue.

Begin with `line.py`: a `Result` is one line. `writer.py` writes lines before the queue is told, `file.py` opens the
file and mends what a killed process left. `places.py` remembers which file and line a change came from.
docs/results.md says what users see.
"""

from worker.results.file import ResultsFile, UnusableResults
from worker.results.line import Result
from worker.results.places import Places
from worker.results.writer import ResultsWriter

__all__ = ["Places", "Result", "ResultsFile", "ResultsWriter", "UnusableResults"]
