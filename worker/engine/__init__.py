"""The engine: claims go from the queue to the service and their outcomes back, one way."""

from worker.engine.applier import Apply
from worker.engine.keys import ReadKey
from worker.engine.options import Ending, Options, Summary
from worker.engine.worker import Worker

__all__ = ["Apply", "Ending", "Options", "ReadKey", "Summary", "Worker"]
