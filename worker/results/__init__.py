"""Results of a run, as a file for other programs: one line of JSON for each change that has left the queue.

Begin with `line.py`: a `Result` is one line. `writer.py` writes lines before the queue is settled, `file.py` opens the
file and repairs what a killed process left. `places.py` remembers the file and line that a change came from.
docs/results.md describes the file for users.
"""

from worker.results.file import ResultsFile, UnusableResults
from worker.results.line import Result
from worker.results.places import Places
from worker.results.writer import ResultsWriter

__all__ = ["Places", "Result", "ResultsFile", "ResultsWriter", "UnusableResults"]
