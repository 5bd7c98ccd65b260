"""The queue's URL: what of it is for the driver, what is for us, and what may be shown."""

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlencode

from worker.queue.base import QueueUnusable

_HOST = r"(?:[A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.%]+\])(?::\d+)?"
# Where a URL may be split, a password with an unescaped character could be taken for something that is shown.
_URL = re.compile(
    r"postgres(?:ql)?://"
    r"(?:[^/?#@]*@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)?"
    r"(?:/(?P<database>[^/?#@]*))?"
    r"(?:\?(?P<query>[^?#@]*))?"
)
_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a PostgreSQL queue is.

    Args:
        dsn: the URL as the driver takes it, which may hold a password.
        shown: the URL as people may see it.
        listens: whether notifications are listened to; a proxy that pools transactions does not let any through.
    """

    dsn: str = field(repr=False)
    shown: str
    listens: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take the URL apart.

        Args:
            url: ``postgresql://user:password@host:5432/database``, as libpq has it; with ``listen=off`` among the
                options, nothing is listened to.

        Raises:
            QueueUnusable: it is not of this form.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise QueueUnusable(
                "the queue URL must be postgresql://user:password@host:5432/database, "
                "each part percent-encoded where it has other characters than letters and digits"
            )
        options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
        listens = _SWITCH.get(options.pop("listen", "on"))
        if listens is None:
            raise QueueUnusable("the option listen of the queue URL must be on or off")
        options.setdefault("application_name", "metasync")
        hosts = match["hosts"] or options.get("host", "")
        dsn = f"{url.partition('?')[0]}?{urlencode(options)}"
        return cls(dsn, f"postgresql://{hosts}/{match['database'] or ''}", listens)
