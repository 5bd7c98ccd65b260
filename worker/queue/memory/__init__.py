"""The queue in memory: the contract in plain Python, for tests; its content ends with the process.

Begin with `queue.py`, which has the calls and what is pending. The other modules keep what is left of changes that
ended.
"""

from worker.queue.memory.queue import MemoryQueue

__all__ = ["MemoryQueue"]
