"""Further help of the simulator's command; `Options` declares its flags."""

from typing import get_args

from worker.simulator.delay import DURATIONS
from worker.simulator.kinds import FAULT_KINDS
from worker.simulator.requests import Operation

_EXAMPLE = """\
example: a slow service with a hidden limit, where one update in fifty goes wrong
  metasync simulator --port 8080 --completions 1000 --update-latency 3.6s~0.3 --lag 1s-6s \\
      --limit 500 --fault internal_error=1% --fault cut_off=0.01 --faults-on updates
"""


def epilog() -> str:
    """Return help on durations, operations and faults, with an example."""
    kinds = "".join(f"  {name:<15}  {meaning}\n" for name, meaning in FAULT_KINDS.items())
    operations = ", ".join(get_args(Operation))
    return f"{DURATIONS}\noperations: {operations}\n\nkinds of fault:\n{kinds}\n{_EXAMPLE}"
