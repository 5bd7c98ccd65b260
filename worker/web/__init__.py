"""What a worker shows over HTTP: health, metrics, a page for people, and the door for changes.

Begin with `server.py` and `routes.py`. `health.py` and `metrics.py` are for machines; `page.py`, `view.py` and
`words.py` are the page, which `live.py` keeps up to date. `access.py`, `link.py` and `bounds.py` say who may do what,
and how often. `intake.py` takes changes, and `receiving.py` serves that alone.
"""

from worker.web.intake import Terms
from worker.web.listening import Unservable
from worker.web.receiving import receiving
from worker.web.server import serving

__all__ = ["Terms", "Unservable", "receiving", "serving"]
