"""The engine: claims go from the queue to the service, and their outcomes go back.

Begin with `worker.py`, which starts and stops the parts. `reader.py` claims, `applier.py` applies one claim with
`calls.py`, `recorder.py` settles it. `blame.py` and `ledger.py` decide whose fault a failure is, `draining.py` when a
drain ends, `leases.py` keeps leases. `options.py` has the options and the summary of a run.
"""

from worker.engine.applier import Apply
from worker.engine.keys import ReadKey
from worker.engine.options import Ending, Options, Summary
from worker.engine.worker import Worker

__all__ = ["Apply", "Ending", "Options", "ReadKey", "Summary", "Worker"]
