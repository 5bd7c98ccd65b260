"""The queue's URL: the options for the driver, the options for metasync, and the part that may be shown."""

import os
import re
import ssl
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import parse_qsl, unquote, urlencode

from worker.queue.certificates import load_authorities, load_certificate
from worker.queue.errors import QueueMisnamed

_HOST = r"(?:[A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.%]+\])(?::\d+)?"
# The pattern is strict about the parts: a password with an unescaped character must not pass for a part that is shown.
_URL = re.compile(
    r"postgres(?:ql)?://"
    # Any other character makes the driver's parser fail, and show the password.
    r"(?:(?P<login>[^\s/?#@\[\]\x7f-\U0010ffff]*)@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)?"
    r"(?:/(?P<database>[^/?#@]*))?"
    r"(?:\?(?P<query>[^?#@]*))?"
)
_LAST_PORT = 65_535
_POOLED = (
    "a proxy that pools transactions stands before {shown}, and passes no notification on: workers look for changes at "
    "intervals instead; listen=off, an option of the queue's URL, spares them this discovery"
)
_SWITCH = {"on": True, "off": False}
_VERIFYING = ("require", "verify-ca", "verify-full")  # the modes in which the driver looks at files of authorities
_PASSWORDS = ("password", "sslpassword")
_OF_CLIENT = "sslcert or sslkey"
# Options of libpq that the driver does not know, and would pass to the server as settings. The text says what happens
# without them. Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_IGNORED = {
    "channel_binding": "a login is not bound to its TLS connection: sslmode=verify-full keeps others out",
    **dict.fromkeys(
        ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        "each call has its own time-out, --store-timeout, and idle connections are tried before they are used",
    ),
    **dict.fromkeys(("gssencmode", "gssdelegation"), "connections are encrypted by TLS alone: see sslmode"),
    "load_balance_hosts": "hosts are tried in their order",
    "require_auth": "a server is given the kind of login that it asks for: sslmode=verify-full keeps others out",
    **dict.fromkeys(
        ("hostaddr", "requirepeer", "sslcertmode", "sslcompression", "sslcrldir", "sslkeylogfile", "sslsni"),
        "the driver does not know it",
    ),
    **dict.fromkeys(("min_protocol_version", "max_protocol_version"), "it is always version 3.0"),
}
_HARMLESS = {  # values that ask for what metasync does anyway
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "max_protocol_version": ("3.0", "latest"),
    "min_protocol_version": ("3.0",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a PostgreSQL queue.

    Args:
        dsn: the URL for the driver, which may hold a password.
        shown: the URL that people may see.
        listens: whether to listen for notifications. A proxy that pools transactions does not pass any.
        connect_seconds: how long to try to connect to each host; None if the URL does not say.
        tls: how to check certificates, if the driver cannot take that from the URL.
        warnings: the ignored options, a sentence each.
        secrets: what must not be shown.
    """

    dsn: str = field(repr=False)
    shown: str
    listens: bool
    connect_seconds: float | None = None
    tls: ssl.SSLContext | None = None
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse the URL.

        Args:
            url: ``postgresql://user:password@host:5432/database``, in libpq's form. The option ``listen=off`` turns
                listening off.

        Raises:
            QueueMisnamed: the URL has another form.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise QueueMisnamed(
                "the queue URL must be postgresql://user:password@host:5432/database, "
                "each part percent-encoded where it has other characters than letters and digits"
            )
        options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
        password = unquote((match["login"] or "").partition(":")[2])
        secrets = (password, *(options[name] for name in _PASSWORDS if name in options))
        listens = _SWITCH.get(options.pop("listen", "on"))
        if listens is None:
            raise QueueMisnamed("the option listen of the queue URL must be on or off")
        options.setdefault("application_name", options.pop("fallback_application_name", "metasync"))
        warnings = tuple(_ignored(options))
        hosts = match["hosts"] or options.get("host", "")
        ports = [*re.findall(r":(\d+)(?:,|$)", hosts), *options.get("port", "").split(",")]
        if any(port.isdecimal() and int(port) > _LAST_PORT for port in ports):
            raise QueueMisnamed(f"a port of the queue URL must be at most {_LAST_PORT}")
        connect_seconds, tls = _connect_seconds(options), _system_tls(options)
        _check_files(options)
        dsn = f"{url.partition('?')[0]}?{urlencode(options)}"
        shown = f"postgresql://{hosts}/{match['database'] or ''}"
        return cls(dsn, shown, listens, connect_seconds, tls, warnings, secrets)

    def deaf(self) -> Self:
        """The same address, behind a proxy that pools transactions."""
        return replace(self, listens=False, warnings=(*self.warnings, _POOLED.format(shown=self.shown)))


def _ignored(options: dict[str, str]) -> list[str]:
    """Remove the options that the driver does not know; return a warning for each that would change something."""
    ignored = {name: options.pop(name) for name in list(options) if name in _IGNORED}
    return [
        f"{name}, an option of the queue's URL, is ignored: {_IGNORED[name]}"
        for name, value in ignored.items()
        if value not in _HARMLESS.get(name, ())
    ]


def _connect_seconds(options: dict[str, str]) -> float | None:
    text = options.pop("connect_timeout", "0")
    if not re.fullmatch(r"-?\d+", text):
        raise QueueMisnamed("the option connect_timeout of the queue URL must be a number of seconds")
    return float(text) if int(text) > 0 else None  # libpq reads 0 and less as no limit


def _system_tls(options: dict[str, str]) -> ssl.SSLContext | None:
    """The TLS context for ``sslrootcert=system``. The driver would look for a file of this name."""
    if options.get("sslrootcert") != "system":
        return None
    del options["sslrootcert"]
    if options.pop("sslmode", "verify-full") != "verify-full":
        raise QueueMisnamed("sslrootcert=system, an option of the queue URL, goes with sslmode=verify-full alone")
    context = ssl.create_default_context()
    if certificate := options.pop("sslcert", None):
        key, password = options.pop("sslkey", None), options.pop("sslpassword", "")
        load_certificate(context, _OF_CLIENT, certificate, key, password)
    return context


def _check_files(options: dict[str, str]) -> None:
    """Raise if a file that the driver would load cannot be used."""
    mode = options.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl"):
        if mode in _VERIFYING and name in options:
            load_authorities(context, name, options[name])
    if mode != "disable" and "sslcert" in options and "sslkey" in options:  # else the driver may know a key
        load_certificate(context, _OF_CLIENT, options["sslcert"], options["sslkey"], options.get("sslpassword", ""))
