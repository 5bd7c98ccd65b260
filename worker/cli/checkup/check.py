"""The result of one check, in the form that all subjects report."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The state of a checked thing."""

    OK = "ok"
    WARNING = "warning"  # work is possible, but a person should know
    FAILURE = "failure"  # `apply` and `run` would fail


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: what was checked.
        state: ok, warning (work is possible) or failure.
        detail: what was found, without secrets.
        advice: what to do; null if there is nothing to do or the detail says it.
        halts: whether it would halt a worker until a person acts, such as a wrong key.
    """

    name: str
    state: State
    detail: str
    advice: str | None = None
    halts: bool = False


def ok(name: str, detail: str) -> Check:
    """Report that all is well."""
    return Check(name, State.OK, detail)


def warning(name: str, detail: str, advice: str | None = None) -> Check:
    """Report something that a person should know."""
    return Check(name, State.WARNING, detail, advice)


def failure(name: str, detail: str, advice: str | None = None, *, halts: bool = False) -> Check:
    """Report something that a person must fix."""
    return Check(name, State.FAILURE, detail, advice, halts)
