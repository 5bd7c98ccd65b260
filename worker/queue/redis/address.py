"""Parse the queue's URL."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from worker.queue.certificates import load_authorities, load_certificate
from worker.queue.errors import QueueMisnamed

_SCHEMES = ("redis", "rediss")
_DEFAULT_PORT = 6379
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # a brace or a colon would change the keys' meaning
_OPTIONS = ("prefix", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_FORM = (
    "the queue URL must be redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?prefix=NAME], "
    "or the same with rediss:// for TLS"
)
_NO_SHARDS = (
    "a Redis queue has no shards: moving one splits the queue and loses changes; "
    "leave ?shards= out of its URL, and use PostgreSQL where one server is not enough"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and the queue's database and prefix on it.

    Args:
        database: its number.
        tls_files: redis-py's arguments ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, as far as given.
        prefix: the queue's name on the server.
    """

    host: str
    port: int = _DEFAULT_PORT
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_files: dict[str, str] = field(default_factory=dict)
    prefix: str = "metasync"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown."""
        return (self.password,) if self.password else ()

    @property
    def base(self) -> str:
        """The start of all key names of the queue."""
        return f"{self.prefix}:"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


def read_url(url: str) -> Address:
    """Parse the URL.

    Raises:
        QueueMisnamed: the URL is invalid; the message shows neither user nor password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise QueueMisnamed(_FORM) from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.fragment:
        raise QueueMisnamed(_FORM)
    if "shards" in options:
        raise QueueMisnamed(_NO_SHARDS)
    if unknown := [name for name in options if name not in _OPTIONS]:
        raise QueueMisnamed(f"a Redis queue's URL takes {', '.join(_OPTIONS)}, not {unknown[0]!a}")
    return Address(
        host=parts.hostname,
        port=port,
        database=_database(parts),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        tls_files=_tls_files(parts.scheme, options),
        prefix=_prefix(options.get("prefix", "metasync")),
    )


def _database(parts: SplitResult) -> int:
    number = parts.path.removeprefix("/") or "0"
    if not (number.isascii() and number.isdigit() and len(number) <= 5):  # noqa: PLR2004 -- servers have 16 by default
        raise QueueMisnamed(_FORM)
    return int(number)


def _tls_files(scheme: str, options: dict[str, str]) -> dict[str, str]:
    found = {name: path for name, path in options.items() if name.startswith("ssl_")}
    for name, path in found.items():
        if scheme != "rediss":
            raise QueueMisnamed(f"{name} is for rediss:// URLs, which use TLS")
        if not Path(path).is_file():
            raise QueueMisnamed(f"{name}: there is no file {path!a}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities := found.get("ssl_ca_certs"):
        load_authorities(context, "ssl_ca_certs", authorities)
    if certificate := found.get("ssl_certfile"):
        load_certificate(context, "ssl_certfile or ssl_keyfile", certificate, found.get("ssl_keyfile"))
    elif "ssl_keyfile" in found:
        raise QueueMisnamed("ssl_keyfile goes with ssl_certfile")
    return found


def _prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise QueueMisnamed(
            f"prefix must be a letter or digit, then up to 63 of letters, digits, '.', '_' and '-', not {prefix!a}"
        )
    return prefix
