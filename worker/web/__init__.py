"""What a worker tells those who operate it: whether it is well, and figures, over HTTP."""

from worker.web.server import Unservable, serving

__all__ = ["Unservable", "serving"]
