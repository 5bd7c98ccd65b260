"""A simulator of the service, with limits, lag and faults on demand. It shares no code with the worker that it tests.

Begin with `server.py`, the HTTP side, and `service.py`, which answers requests. `store.py` and `completions.py` keep
completions, `limiter.py` limits rates, `faults.py` and `kinds.py` produce faults, `watch.py` counts requests and finds
violations. `options.py` declares the options, and tests change them by `control.py`.
"""

from worker.simulator.answers import Answer
from worker.simulator.arguments import epilog
from worker.simulator.delay import Delay
from worker.simulator.kinds import Fault, FaultKind
from worker.simulator.options import Options, RateLimit
from worker.simulator.server import Simulator
from worker.simulator.service import Switches
from worker.simulator.watch import Counters

__all__ = [
    "Answer",
    "Counters",
    "Delay",
    "Fault",
    "FaultKind",
    "Options",
    "RateLimit",
    "Simulator",
    "Switches",
    "epilog",
]
