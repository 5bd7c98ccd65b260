"""Explains failures of a PostgreSQL server in one sentence each, with what to do."""

import ssl
from collections.abc import Iterable

import asyncpg

from worker.queue.errors import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, QueueUnwritable
from worker.spellings import masked

# By SQLSTATE, or by its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE = {
    "08": "the connection was lost ({message})",
    "08P01": "a proxy before the server turns us away ({message})",  # whatever pgbouncer has to say has this state
    "25006": "the server takes no writes: it is a standby, or set to read only; perhaps a failover is under way",
    "25P03": "the server ended the connection, which had been idle in a transaction for too long",
    "40": "other transactions were in the way ({message})",
    "53": "the server has run out of something ({message})",
    "53300": "the server has no connection left ({message})",
    "55P03": "another transaction holds a lock for too long; it may be a producer's that stays open",
    "57": "the server is not there for us ({message})",
    "57014": "the server took too long ({message})",
    "XX": "the server is in trouble ({message})",
}
_UNWRITABLE = {"53100": "the disk is full ({message})", "58": "reading or writing failed ({message})"}
_POOLED = "a proxy that pools transactions stands before it: add listen=off to the options of the URL ({message})"
_BROKEN_SCHEMA = "its schema is not what it should be ({message})"
_UNUSABLE = {
    "0A": "the server cannot do that ({message})",
    "28": "the server does not let us in ({message})",
    "3D000": "there is no such database ({message})",
    "3F000": _BROKEN_SCHEMA,
    "42": _BROKEN_SCHEMA,
    "42501": "the role lacks a right ({message}); somebody who has it can run `metasync migrate`, and grant the others",
}
_MISNAMED = {
    "42704": "the server refuses an option of the URL, or its schema is not what it should be ({message})",
    "22023": "the server refuses an option of the URL ({message})",
    "22P02": "the server refuses an option of the URL ({message})",
    "26000": _POOLED,
    "42P05": _POOLED,
}
# What a proxy says in words alone; source: pgbouncer's code.
_OF_PROXY = {
    "statement pooling mode": (
        "a proxy that pools statements stands before it, and the queue needs transactions: "
        "have it pool transactions, or sessions ({message})"
    ),
    "unsupported startup parameter": (
        "a proxy before the server refuses an option of the URL: leave it out, or have the proxy ignore it ({message})"
    ),
}
# Python's messages for a UID without a user name, as in containers that run as any UID: up to 3.12, and from 3.13 on.
_NAMELESS = ("getpwuid()", "No username set")
_OF_SERVER: dict[type[QueueError], dict[str, str]] = {
    QueueUnavailable: _UNAVAILABLE,
    QueueUnwritable: _UNWRITABLE,
    QueueUnusable: _UNUSABLE,
    QueueMisnamed: _MISNAMED,
}
_SENTENCES: dict[type[QueueError], str] = {
    QueueUnavailable: "the queue at {shown} cannot be used now: {what}",
    QueueUnwritable: "the queue at {shown} cannot be written: {what}",
    **dict.fromkeys((QueueUnusable, QueueMisnamed), "{shown} cannot be the queue: {what}"),
}


def explained(error: Exception, shown: str, secrets: Iterable[str] = ()) -> QueueError | None:
    """Explain a failure of a call; None for a programming error, which propagates.

    Args:
        shown: the queue's URL, without a password.
        secrets: what a server or a proxy might repeat, and must not be shown.
    """
    what, kind = _explanation(error)
    if what is None:
        return None
    return kind(_SENTENCES[kind].format(shown=shown, what=masked(what, secrets)))


def _explanation(error: Exception) -> tuple[str | None, type[QueueError]]:
    what: str | None = None
    kind: type[QueueError] = QueueUnavailable
    match error:
        case asyncpg.PostgresError():
            what, kind = _of_server(error)
        case asyncpg.ClientConfigurationError():
            what, kind = f"the URL makes no sense to the driver ({_line(error)})", QueueMisnamed
        case asyncpg.TargetServerAttributeNotMatched():
            what = f"no server is what the URL asks for ({_line(error)})"
        case asyncpg.InternalClientError():  # such as the server's goodbye while the driver awaits an answer
            what = "the connection was lost (the driver met what it did not expect)"
        case asyncpg.InterfaceError() if not isinstance(error, ValueError):
            what = f"the connection was lost ({_line(error)})"
        case ssl.SSLCertVerificationError():
            what, kind = f"its certificate is not to be trusted ({error.verify_message})", QueueUnusable
        case KeyError() | OSError() if any(words in str(error) for words in _NAMELESS):
            what = "the URL names no user, and the one that this process runs as has no name: put one into it"
            kind = QueueMisnamed
        case OSError():  # refused, no such host, no such socket, cut
            what = f"it cannot be reached ({_line(error)})"
    return what, kind


def _of_server(error: asyncpg.PostgresError) -> tuple[str | None, type[QueueError]]:
    sqlstate = error.sqlstate or ""
    if sqlstate.startswith("08"):
        for words, text in _OF_PROXY.items():
            if words in _line(error):
                return text.format(message=_line(error)), QueueMisnamed
    for state in (sqlstate, sqlstate[:2]):
        for kind, texts in _OF_SERVER.items():
            if state in texts:
                return texts[state].format(message=_line(error)), kind
    if not error.severity:  # the driver raised it: an argument has the wrong type
        return None, QueueUnavailable
    # Any other error of the server counts as unavailable, so that work is kept; the log shows it all the time.
    return f"it answered with an error (SQLSTATE {sqlstate or 'missing'}: {_line(error)})", QueueUnavailable


def is_demoted(error: Exception) -> bool:
    """Whether the server takes no writes any more: it has become a standby."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


def _line(error: Exception) -> str:
    """The first line of its message. The other lines may repeat what was sent."""
    return str(error).partition("\n")[0] or type(error).__name__
