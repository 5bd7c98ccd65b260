"""The service on your own machine, with limits, lag and faults to order; it shares no code with the worker."""

from worker.simulator.arguments import add_arguments, options_from
from worker.simulator.options import Delay, Faults, Options, RateLimit
from worker.simulator.server import Simulator
from worker.simulator.service import Switches
from worker.simulator.watch import Counters

__all__ = [
    "Counters",
    "Delay",
    "Faults",
    "Options",
    "RateLimit",
    "Simulator",
    "Switches",
    "add_arguments",
    "options_from",
]
