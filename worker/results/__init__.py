"""The results of a run as a file that other programs can join: a line of JSON for each change that has ended."""

from worker.results.file import ResultsFile, UnusableResults
from worker.results.line import Result
from worker.results.places import Places
from worker.results.writer import ResultsWriter

__all__ = ["Places", "Result", "ResultsFile", "ResultsWriter", "UnusableResults"]
