"""What a worker tells those who operate it: whether it is well, and figures, over HTTP."""

from worker.web.intake import Terms
from worker.web.listening import Unservable
from worker.web.receiving import receiving
from worker.web.server import serving

__all__ = ["Terms", "Unservable", "receiving", "serving"]
