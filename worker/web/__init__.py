"""The worker's HTTP server: health, metrics, a page for people, and the intake of changes.

Begin with `server.py` and `routes.py`. `health.py` and `metrics.py` serve machines; `page.py`, `view.py` and `words.py`
make the page, and `live.py` keeps it up to date. `access.py`, `door.py` and `link.py` decide who may do what,
`bounds.py` how often. `intake.py` accepts changes, and `receiving.py` serves it without a worker.
"""

from worker.web.intake import Terms
from worker.web.listening import Unservable
from worker.web.receiving import receiving
from worker.web.server import serving

__all__ = ["Terms", "Unservable", "receiving", "serving"]
