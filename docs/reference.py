"""Writes reference.md out of the code: `make docs`. A test sees to it that the two agree."""

import argparse
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from config.settings import Settings, variable
from worker.cli.exits import Exit
from worker.cli.main import VERBS
from worker.engine.tallies import Tallies
from worker.engine.totals import Totals
from worker.flow import FlowState
from worker.flow.gate import GateState
from worker.queue.base import QueueStatus
from worker.web.metrics import Reading, families

TARGET = Path(__file__).parent / "reference.md"

EXITS = {
    Exit.DONE: "all that was due is done",
    Exit.INTERNAL_ERROR: "internal error; of `demo`: a check failed",
    Exit.USAGE: "usage or configuration: nothing was changed",
    Exit.NOT_ALL: "done, but this run made dead letters, or lines were refused",
    Exit.RUN_AGAIN: "not finished, run again: `--max-duration` reached, an outage, cut short by a signal",
    Exit.HALTED: "halted until somebody acts: key, permission, quota, wrong URL; the queue is kept",
    Exit.INTERRUPTED: "second Ctrl-C",
}


EVERYTHING = Reading(
    tallies=Tallies(),
    totals=Totals(),
    leases_lost=0,
    flow=FlowState(
        rate_per_second=1.0,
        limit_found_per_second=1.0,
        in_flight=0,
        slots=1,
        throttled=0,
        requests=0,
        seconds_closed=0.0,
        gate=GateState.OPEN,
        halt_reason=None,
        halted_since=None,
        next_probe_in_seconds=None,
        closed_for_seconds=0.0,
    ),
    status=QueueStatus(pending=0, in_flight=0, waiting=0, dead=0, oldest_pending_seconds=None, recent_per_second=0.0),
    lag_seconds=0.0,
    worst_lag_seconds=0.0,
)


def render() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Generated from the code by `make docs`."
    yield ""
    yield "## Commands"
    for name, summary in VERBS.items():
        parser = argparse.ArgumentParser(prog=f"metasync {name}")
        import_module(f"worker.cli.{name}").add_arguments(parser)
        yield from ("", f"### `metasync {name}`", "", f"{summary[0].upper()}{summary[1:]}.", "")
        yield from _flags(parser)
    yield from ("", "Settings can be given as flags too, by those commands that use them: `--lease 10m`.", "")
    yield from ("## Settings", "")
    yield "The first source that has a setting wins: a flag, the environment, `.env`, `metasync.toml` (by the"
    yield "names in lower case, without `METASYNC_`), then a file of that name in `METASYNC_SECRETS_DIR`. Durations are"
    yield "seconds, or such as `250ms`, `30s`, `15m`, `2h`, `1d`. An unknown `METASYNC_` variable is an error."
    yield from ("", "| variable | default | meaning |", "|---|---|---|")
    for name, field in Settings.model_fields.items():
        yield f"| `{variable(name)}` | {_default(field.default)} | {field.description} |"
    yield from ("", "## Exit codes", "", "| code | meaning |", "|---|---|")
    for code, meaning in EXITS.items():
        yield f"| {code.value} | {meaning} |"
    yield from ("", "## Metrics", "")
    yield "At `/metrics` of a daemon with `METASYNC_HTTP_PORT` set, besides those of the process (`process_`) and of"
    yield "Python's garbage collector (`python_gc_`)."
    yield from ("", "| metric | type | labels | meaning |", "|---|---|---|---|")
    for family in families(EVERYTHING):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ", ".join(f"`{name}`" for name in family._labelnames)  # noqa: SLF001 -- as written in our code
        yield f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |"


def _default(value: object) -> str:
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    rows = [
        (", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`", action.help)
        for group in parser._action_groups  # noqa: SLF001 -- argparse has no public way to ask
        if group.title != "settings"
        for action in group._group_actions  # noqa: SLF001 -- likewise
        if not isinstance(action, argparse._HelpAction)  # noqa: SLF001 -- likewise
    ]
    if rows:
        yield from ("| argument | meaning |", "|---|---|")
        for name, meaning in rows:
            yield f"| {name} | {meaning or ''} |"


if __name__ == "__main__":
    TARGET.write_text(render())
