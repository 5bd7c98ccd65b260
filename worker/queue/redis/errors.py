"""Classify a server's errors and lost connections: wait, or let a person fix it."""

import re
import ssl
from collections.abc import Iterable

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from worker.queue.errors import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, QueueUnwritable
from worker.spellings import masked

# The first words of error replies; source: the servers' code and documentation.
_UNAVAILABLE = {
    "LOADING": "it is still loading its data",
    "BUSY": "a script has kept it busy for too long",
    "READONLY": "it is a replica, which cannot be written to; perhaps a failover is under way",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "NOREPLICAS": "fewer replicas are in touch with it than min-replicas-to-write demands",
    "OOM": "its memory is used up (maxmemory)",
}
IS_CLUSTER = (
    "it is a node of a cluster, and a cluster that moves slots splits the queue and loses changes; "
    "use one server, or PostgreSQL where one is not enough"
)
_WRONG_PASSWORD = "the user's name or the password is wrong, or one is needed"  # noqa: S105 -- a sentence
_UNUSABLE = {
    "WRONGPASS": _WRONG_PASSWORD,
    "NOAUTH": _WRONG_PASSWORD,
    "NOPERM": "its user may not do what the queue needs; the documentation on Redis lists the permissions",
    "DENIED": "it is in protected mode, and takes connections from its own machine alone",
}
_MISNAMED = {
    **dict.fromkeys(("CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN"), IS_CLUSTER),
    "WRONGTYPE": "another program has keys of these names; choose others with ?prefix=NAME",
}
# The start of error replies without such a word; the rest may contain arguments.
_UNKNOWN_COMMAND = re.compile(r"unknown (?:redis )?command(?:\W+(?!called from)(\w+))?", re.IGNORECASE)
_UNKNOWN = "it does not know {command}: Redis 7 or newer, or Valkey, is needed, with no command disabled or renamed"
_MISNAMED_MESSAGES = {
    "DB index is out of range": "it has no database of this number",
    "SELECT is not allowed": IS_CLUSTER,
}
# redis-py's message where the server closes a new connection before it has read what the driver says at first.
_CUT_AT_ONCE = "Connection lost"
_PERHAPS_FULL = (
    "it cut the connection at once; if it is up, it may have none left (maxclients), or take TLS alone (rediss://)"
)
# After a failover, reconnect: the name must be resolved again.
_DEMOTED = ("READONLY", "MASTERDOWN")
_LONGEST_MESSAGE = 200

DRIVER_ERRORS = (RedisError, OSError)  # raised by redis-py


def explained(error: Exception, where: object, secrets: Iterable[str] = ()) -> QueueError:  # noqa: PLR0911 -- one return per meaning
    """Convert an error of the driver to a `QueueError`.

    Args:
        where: the server's address, without a password.
        secrets: what a server or a proxy might repeat, and must not be shown.
    """
    code, message, cause = _code(error), _message(error, secrets), error.__context__
    if isinstance(error, AuthenticationError) or code in _UNUSABLE:
        return unusable(where, _UNUSABLE.get(code, _WRONG_PASSWORD))
    if code in _MISNAMED:
        return misnamed(where, _MISNAMED[code])
    if code == "MISCONF":
        return QueueUnwritable(f"the queue at {where} cannot be written: it cannot write to its disk")
    if code in _UNAVAILABLE:
        return unavailable(where, _UNAVAILABLE[code])
    if isinstance(cause, ssl.SSLCertVerificationError):
        return unusable(where, f"its certificate is not trusted: {cause.verify_message}")
    if unknown := _UNKNOWN_COMMAND.match(message):
        return unusable(where, _UNKNOWN.format(command=unknown[1] or "a command that functions call"))
    for beginning, what in _MISNAMED_MESSAGES.items():
        if message.startswith(beginning):
            return misnamed(where, what)
    if _CUT_AT_ONCE in message:
        return unavailable(where, _PERHAPS_FULL)
    reached = "it answered with an error" if isinstance(error, ResponseError) else "it cannot be reached"
    return unavailable(where, f"{reached}: {message}")


def is_demoted(error: Exception) -> bool:
    """Whether the server has become a replica, which accepts no writes."""
    return _code(error) in _DEMOTED


def is_function_missing(error: Exception) -> bool:
    """Whether the function library is missing: the server was restarted empty, or replaced."""
    return isinstance(error, ResponseError) and _message(error).startswith("Function not found")


def is_full(error: Exception) -> bool:
    """Whether the server has used up its memory."""
    return _code(error) == "OOM"


def unavailable(where: object, what: str) -> QueueUnavailable:
    """Return the error for a state in which waiting may help."""
    return QueueUnavailable(f"the queue at {where} cannot be used now: {what}")


def unusable(where: object, what: str) -> QueueUnusable:
    """Return the error for a state that a person must fix."""
    return QueueUnusable(f"{where} cannot be the queue: {what}")


def misnamed(where: object, what: str) -> QueueMisnamed:
    """Return the error for a state in which only another setting helps."""
    return QueueMisnamed(f"{where} cannot be the queue: {what}")


def _code(error: Exception) -> str:
    """Return the first word of an error reply, which redis-py separates if it knows it."""
    if not isinstance(error, RedisError):
        return ""
    if _message(error).startswith("ACL failure"):  # raised within a function
        return "NOPERM"
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def _message(error: Exception, secrets: Iterable[str] = ()) -> str:
    return masked(str(error), secrets).removeprefix("ERR ")[:_LONGEST_MESSAGE] or type(error).__name__
