"""What one look has shown: the form that all subjects report in."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"  # work goes on, but somebody should know
    FAILURE = "failure"  # `apply` and `run` would fail by it


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what was looked at.
        state: how it is; of a warning, work goes on.
        detail: what was found, without secrets.
        advice: what to do; null where there is nothing to do, or the detail says it.
        halts: whether a worker would be halted by it until a person acts: the key above all.
    """

    name: str
    state: State
    detail: str
    advice: str | None = None
    halts: bool = False


def ok(name: str, detail: str) -> Check:
    """It is as it should be."""
    return Check(name, State.OK, detail)


def warning(name: str, detail: str, advice: str | None = None) -> Check:
    """Somebody should know."""
    return Check(name, State.WARNING, detail, advice)


def failure(name: str, detail: str, advice: str | None = None, *, halts: bool = False) -> Check:
    """Somebody has to act."""
    return Check(name, State.FAILURE, detail, advice, halts)
