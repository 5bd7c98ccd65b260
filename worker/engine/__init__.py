"""The engine: claims go from the queue to the service and their outcomes back, one way."""

from worker.engine.applier import Apply
from worker.engine.worker import Ending, Options, Summary, Worker

__all__ = ["Apply", "Ending", "Options", "Summary", "Worker"]
