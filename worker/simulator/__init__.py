"""The service on your own machine, with limits, lag and faults to order.

It shares no code with the worker that it checks. Begin with `server.py`, the HTTP side, and `service.py`, what it
answers. `store.py` and `completions.py` keep completions, `limiter.py` refuses, `faults.py` and `kinds.py` go wrong on
purpose, `watch.py` counts and sees what must not happen. `options.py` has what can be set, `control.py` what tests
change while it runs.
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
