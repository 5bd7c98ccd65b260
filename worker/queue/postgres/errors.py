"""What goes wrong between us and a PostgreSQL server, as one sentence that tells what to do."""

import ssl

import asyncpg

from worker.queue.base import QueueError, QueueUnavailable, QueueUnusable

# By SQLSTATE, or by its class, https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE = {
    "08": "the connection was lost ({message})",
    "25006": "the server takes no writes: it is a standby, or set to read only",
    "25P03": "the server ended the connection, which had been idle in a transaction for too long",
    "40": "other transactions were in the way ({message})",
    "53": "the server has run out of something ({message})",
    "53100": "the disk is full ({message})",
    "53300": "the server has no connection left ({message})",
    "55P03": "another transaction holds a lock for too long; it may be a producer's that stays open",
    "57": "the server is not there for us ({message})",
    "57014": "the server took too long ({message})",
    "58": "reading or writing failed ({message})",
    "XX": "the server is in trouble ({message})",
}
_POOLED = "a proxy that pools transactions stands before it: add listen=off to the options of the URL ({message})"
_BROKEN_SCHEMA = "its schema is not what it should be ({message})"
_UNUSABLE = {
    "0A": "the server cannot do that ({message})",
    "26000": _POOLED,
    "28": "the server does not let us in ({message})",
    "3D000": "there is no such database ({message})",
    "3F000": _BROKEN_SCHEMA,
    "42": _BROKEN_SCHEMA,
    "42501": "the role lacks a right ({message}); somebody who has it can run `metasync migrate`, and grant the others",
    "42P05": _POOLED,
    "42704": "the server refuses an option of the URL, or its schema is not what it should be ({message})",
    "22023": "the server refuses an option of the URL ({message})",
    "22P02": "the server refuses an option of the URL ({message})",
}


def explained(error: Exception, shown: str) -> QueueError | None:
    """Say what a failure of a call means, or None when it is a programming error, which passes.

    Args:
        shown: the queue's URL, without a password.
    """
    what, waiting_helps = _explanation(error)
    if what is None:
        return None
    if waiting_helps:
        return QueueUnavailable(f"the queue at {shown} cannot be used now: {what}")
    return QueueUnusable(f"{shown} cannot be the queue: {what}")


def _explanation(error: Exception) -> tuple[str | None, bool]:
    what, waiting_helps = None, True
    match error:
        case asyncpg.PostgresError():
            what, waiting_helps = _of_server(error)
        case asyncpg.ClientConfigurationError():
            what, waiting_helps = f"the URL makes no sense to the driver ({_line(error)})", False
        case asyncpg.TargetServerAttributeNotMatched():
            what = f"no server is what the URL asks for ({_line(error)})"
        case asyncpg.InternalClientError():  # such as a goodbye of the server's where the driver awaits an answer
            what = "the connection was lost (the driver met what it did not expect)"
        case asyncpg.InterfaceError() if not isinstance(error, ValueError):
            what = f"the connection was lost ({_line(error)})"
        case ssl.SSLCertVerificationError():
            what, waiting_helps = f"its certificate is not to be trusted ({error.verify_message})", False
        case OSError():  # refused, no such host, no such socket, cut
            what = f"it cannot be reached ({_line(error)})"
    return what, waiting_helps


def _of_server(error: asyncpg.PostgresError) -> tuple[str | None, bool]:
    sqlstate = error.sqlstate or ""
    for state in (sqlstate, sqlstate[:2]):
        for texts, waiting_helps in ((_UNAVAILABLE, True), (_UNUSABLE, False)):
            if state in texts:
                return texts[state].format(message=_line(error)), waiting_helps
    return None, False


def _line(error: Exception) -> str:
    """The first line of what it says: the others may repeat what was sent."""
    return str(error).partition("\n")[0] or type(error).__name__
