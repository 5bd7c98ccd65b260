"""The service on your own machine, with limits, lag and faults to order; it shares no code with the worker."""

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
