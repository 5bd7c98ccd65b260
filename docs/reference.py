"""Writes reference.md and the schemas out of the code: `make docs`; tests hold them equal."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from config.settings import Settings, default_text, flag, is_secret, variable
from worker.cli.exits import Exit
from worker.cli.flags import Prints, printed, setting_arguments
from worker.cli.verbs import VERBS, Command, commands_of, sentence
from worker.engine import Ending
from worker.engine.tallies import Tallies
from worker.flags import Argument, arguments_of
from worker.flow import FlowState
from worker.flow.gate import GateState
from worker.queue import QueueStatus
from worker.results import Result
from worker.web.metrics import Reading, families

TARGET = Path(__file__).parent / "reference.md"
SCHEMAS = TARGET.parent / "schemas"

EVERYTHING = Reading(
    tallies=Tallies(),
    flow=FlowState(
        rate_per_second=1.0,
        rate_limit_per_second=1.0,
        in_flight=0,
        slots=1,
        throttled=0,
        requests=0,
        seconds_closed=0.0,
        gate=GateState.OPEN,
        cause=None,
        slowed_by=None,
        halted_for_seconds=None,
        next_probe_in_seconds=None,
        closed_for_seconds=0.0,
    ),
    is_paused=False,
    status=QueueStatus(pending=0, in_flight=0, waiting=0, dead=0, oldest_pending_seconds=None, recent_per_second=0.0),
    lag_seconds=0.0,
    worst_lag_seconds=0.0,
    dropped_lines=0,
)

# Why a run ended, and its exit code.
ENDINGS = {
    Ending.DRAINED: ("nothing is left in the queue", "0, or 3 where this run made dead letters"),
    Ending.STOPPED: (
        "a signal asked for it",
        "of a daemon 0; of a drain 75, or as `drained` where nothing is left",
    ),
    Ending.MAX_DURATION: (
        "`--max-duration` is over, and no halt needs a person",
        "75, or as `drained` where nothing is left",
    ),
    Ending.HALTED: (
        "a person has to act: `halted` and `error` say why; a drain has waited for `METASYNC_HALT_TIMEOUT` by then",
        "77",
    ),
    Ending.OUTAGE: ("all requests failed for `METASYNC_HALT_TIMEOUT`; only a drain ends so", "75"),
    Ending.STUCK: (
        "the remaining changes have failed for `METASYNC_HALT_TIMEOUT`: see `left`; only a drain ends so",
        "75",
    ),
    Ending.CLOSED: (
        "the service asks to wait longer than `METASYNC_HALT_TIMEOUT`: see `closed_for_seconds`; only a drain",
        "75",
    ),
    Ending.RESULTS_LOST: (
        "the file of `--results` cannot be written: changes without a line stay pending, and are repeated",
        "75",
    ),
    Ending.STORE_AWAY: ("the queue's store was unavailable for `METASYNC_HALT_TIMEOUT`; only a drain ends so", "75"),
    Ending.PAUSED: (
        "the queue is paused: `paused` says by whom and why; a drain, or a run whose `--max-duration` is over",
        "75, or as `drained` where nothing is left",
    ),
    Ending.FAILED: (
        "a part of the worker died: `loop.died` has the cause; there is no summary then",
        "1, or 2 where the queue's URL names what can never be one",
    ),
}

# Every event of the log: when it is written, and the fields that are its own.
EVENTS = {
    "change.applied": ("the service has them", "`attempt`; `leftover_keys` and `verified`, if relevant"),
    "change.unchanged": ("the service had them already", "`attempt`"),
    "change.superseded": ("they were not sent: a change with a newer `as_of` was applied", ""),
    "change.dead_lettered": ("a change was given up", "`attempt`, `reason`, `error`"),
    "change.retry_scheduled": ("they failed, and are due again later", "`attempt`, `delay_ms`, `error`"),
    "change.given_back": ("they stay pending, without a failure of their own; at level debug", "`why`"),
    "change.crashed": ("an internal error while a completion was processed; with its trace", "`completion_id`"),
    "worker.started": ("a run begins", "`drain`, `max_concurrency`"),
    "worker.halted": (
        "all work is halted, or the reason of the halt has changed",
        "`reason`, `error`, `status`, `request_id`, `completion_id`, `operation`, `next_probe_seconds`",
    ),
    "worker.resumed": ("a probe got through", "`reason`, `halted_seconds`"),
    "worker.slowed": (
        "twenty completions in a row met the same refusal: one request a second, and none dies",
        "`reason`, `error`, `status`",
    ),
    "worker.waiting": (
        "the service asked all clients to wait for more than 5 s",
        "`seconds`, `until`, `error`, `status`, `request_id`",
    ),
    "worker.stopping": ("the run is ending", "`why`, an ending; `reason`, of a halt"),
    "worker.unrecorded": ("at the end the store did not accept all outcomes: those changes are repeated", "`claims`"),
    "results.lost": ("the file of `--results` cannot be written: the run ends", "`error`"),
    "queue.paused": (
        "the queue was paused, or the pause's name or reason has changed: nothing starts any more",
        "`by`, `reason`, `paused_seconds`, `in_flight`: requests that may still finish",
    ),
    "queue.resumed": ("the pause is over", "`by` and `reason` of the pause, `paused_seconds`"),
    "worker.quiet": ("the queue is paused, and the last request in flight has ended", "`by`, `reason`"),
    "dead.expired": (
        "dead letters were deleted that were older than `METASYNC_DEAD_RETENTION`",
        "`letters`, `older_than_seconds`",
    ),
    "queue.opened": ("`run` or `apply` starts", "`queue`: where the queue is"),
    "run.summary": ("the run is over", "as `metasync apply --json` prints them, without `enqueued`"),
    "lease.lost": ("another worker may hold it: the request was cut off", "`completion_id`"),
    "loop.died": ("a part of the worker died", "`loop`, `error`"),
    "store.unavailable": (
        "the queue's store does not answer, or a person has to fix it: a daemon waits",
        "`operation`: `begin` until the first success; `error`",
    ),
    "worker.log_dropped": ("standard error was not read or could not be written: so many lines are missing", "`lines`"),
    "store.warning": ("the store may lose acknowledged changes", "`warning`"),
    "settings.key_led_astray": (
        "a file of the working directory decides where a key from another source is sent",
        "`error`: which, from where",
    ),
    "settings.unreadable": ("key or queue URL could not be read again: the old ones are used", "`error`"),
    "web.started": (
        "a daemon serves",
        "`host`, `port`, `token`: whether one is required, `intake`: whether changes are accepted",
    ),
    "intake.unavailable": (
        "changes arrived over HTTP, and the store was unavailable",
        "`error`, `more`: similar failures within ten seconds that are not logged",
    ),
    "intake.unusable": (
        "changes arrived over HTTP, and the queue cannot be used",
        "`error`, `more`: similar failures within ten seconds that are not logged",
    ),
    "web.failing": ("a part of the page fails; with its trace", "`part`"),
    "web.works_again": ("it does again", "`part`"),
    "web.failed": (
        "a request of the web failed; with its trace",
        "`method`, `path`, `more`: similar failures within ten seconds that are not logged",
    ),
    "web.malformed": (
        "a malformed request was received",
        "`peer`, `error`: its kind, `more`: those of the last ten seconds that are not logged",
    ),
    "web.signed_in": ("a user signed in to the page", "`peer`, `by`: `token` or `ticket`, that of a link"),
    "web.sign_in_refused": (
        "a wrong token, or a link that is used or too old",
        "`peer`, `more`: those of the last second that are not logged",
    ),
    "web.no_link": ("`metasync page` cannot find this worker: its page allows no actions", "`error`"),
    "web.replayed": (
        "a user replayed dead letters on the page",
        "`peer`, `number`, `reason`, `all`, `newest`: which; `letters`, `kept`: how many",
    ),
    "web.purged": (
        "a user purged dead letters on the page",
        "`peer`, `number`, `reason`, `all`, `newest`: which; `letters`: how many",
    ),
    "tracing.unavailable": ("spans are configured, but cannot be sent", "`error`"),
    "tracing.export_failed": ("the collector accepts no spans", "`error`"),
    "tracing.export_resumed": ("it does again", ""),
    "tracing.unflushed": ("at the end not all spans were sent", "`error`"),
    "library.logged": ("a library warns; with its trace, if there is one", "`logger`, `message`"),
}

# What the fields of all these events are: a name means the same wherever it stands.
_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_TEXTS = {"type": "array", "items": _TEXT}
_TRUTH = {"type": "boolean"}
FIELDS: dict[str, dict[str, Any]] = {
    "all": _TRUTH,
    "attempt": _COUNT,
    "batch": _TEXT,
    "by": _TEXT,
    "change_ids": _TEXTS,
    "changes": _COUNT,
    "claims": _COUNT,
    "completion_id": _TEXT_OR_NULL,
    "delay_ms": _NUMBER_OR_NULL,
    "drain": _TRUTH,
    "duration_ms": _NUMBER_OR_NULL,
    "error": _TEXT_OR_NULL,
    "exception": {"type": "array", "items": {"type": "object"}},
    "halted_seconds": _NUMBER_OR_NULL,
    "host": _TEXT,
    "in_flight": _COUNT,
    "intake": _TRUTH,
    "kept": _COUNT,
    "keys": _TEXTS,
    "leftover_keys": _TEXTS,
    "letters": _COUNT,
    "logger": _TEXT,
    "lines": _COUNT,
    "loop": _TEXT,
    "max_concurrency": _COUNT,
    "message": _TEXT,
    "metadata": {"type": "object"},
    "method": _TEXT,
    "more": _COUNT,
    "newest": {"type": ["integer", "null"]},
    "next_probe_seconds": _NUMBER_OR_NULL,
    "number": {"type": ["integer", "null"]},
    "older_than_seconds": _NUMBER_OR_NULL,
    "operation": _TEXT_OR_NULL,
    "part": _TEXT,
    "path": _TEXT,
    "paused_seconds": _NUMBER_OR_NULL,
    "peer": _TEXT,
    "port": _COUNT,
    "queue": _TEXT,
    "queue_lag_ms": _NUMBER_OR_NULL,
    "reason": _TEXT_OR_NULL,
    "request_id": _TEXT_OR_NULL,
    "seconds": _NUMBER_OR_NULL,
    "span_id": _TEXT,
    "status": {"type": ["integer", "null"]},
    "token": _TRUTH,
    "trace_id": _TEXT,
    "until": _TEXT,
    "verified": _TRUTH,
    "warning": _TEXT,
    "why": _TEXT,
}
_OF_CHANGES = ("completion_id", "change_ids", "changes", "keys", "status", "request_id", "duration_ms", "queue_lag_ms")
_OF_CHANGES_SOMETIMES = ("batch", "metadata", "trace_id", "span_id")
LOG_SCHEMA = "log.json"
RESULTS_SCHEMA = "results.json"
_WITH_VALUES = ("before", "after")  # of results: they are there where they were asked for


def render() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def schemas() -> dict[str, str]:
    """The JSON Schemas of what each command prints with `--json`, and of the log's lines, by the file's name."""
    found = {
        _schema_name(command, prints): _schema_of(prints.type, _title(command, prints))
        for verb in VERBS
        for command in commands_of(verb)
        for prints in printed(command.model)
    }
    found[LOG_SCHEMA] = _log_schema(found["apply.json"])
    found[RESULTS_SCHEMA] = _schema_of(Result, "a line of metasync's results", _WITH_VALUES)
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in found.items()}


def _log_schema(of_apply: dict[str, Any]) -> dict[str, Any]:
    """One schema for each event; that of `run.summary` is what `apply --json` prints, but for `enqueued`."""
    definitions = dict(of_apply["$defs"])
    report = definitions.pop("Report")
    del definitions["Enqueued"]
    summary = {name: one for name, one in report["properties"].items() if name != "enqueued"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a line of metasync's log",
        "anyOf": [
            _event_schema(event, when, summary if event == "run.summary" else {}, re.findall(r"`(\w+)`", fields))
            for event, (when, fields) in EVENTS.items()
        ],
        "$defs": definitions,
    }


def _event_schema(event: str, when: str, exactly: dict[str, Any], named: list[str]) -> dict[str, Any]:
    common = {
        "time": {"type": "string", "format": "date-time"},
        "level": {"enum": ["debug", "info", "warning", "error", "critical"]},
        "event": {"const": event},
    }
    required, sometimes = list(exactly), [name for name in named if name in FIELDS]
    if event.startswith("change.") and event != "change.crashed":
        required += _OF_CHANGES
        sometimes += _OF_CHANGES_SOMETIMES
    if "trace" in when:
        sometimes.append("exception")
    fields = exactly or {name: FIELDS[name] for name in dict.fromkeys([*required, *sometimes])}
    return {
        "title": event,
        "description": when,
        "type": "object",
        "properties": common | fields,
        "required": [*common, *required],
        "additionalProperties": False,
    }


def _schema_of(
    printed_type: Any,  # noqa: ANN401 -- any type that msgspec knows
    title: str,
    sometimes: Collection[str] = (),
) -> dict[str, Any]:
    schema = msgspec.json.schema(printed_type)
    definitions = schema.get("$defs", {})
    for definition in definitions.values():
        definition["description"] = _describe(definition, definition.get("description", ""))
        if "properties" in definition:  # what has a default is printed all the same
            definition["required"] = [name for name in definition["properties"] if name not in sometimes]
            for one in definition["properties"].values():
                one.pop("default", None)
    for base in getattr(printed_type, "__mro__", ())[1:-1]:  # what is inherited, its docstring says
        if base.__doc__ and base is not msgspec.Struct:
            _describe(definitions[printed_type.__name__], base.__doc__)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title} | schema


def _title(command: Command, prints: Prints) -> str:
    return f"metasync {command.name} {f'{prints.beside} --json'.strip()}"


def _describe(definition: dict[str, Any], docstring: str) -> str:
    """Have what a docstring says of the arguments stand with the properties; returns the rest."""
    description, _, arguments = cleandoc(docstring).partition("\n\nArgs:\n")
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
        for name in names.split(", "):
            definition["properties"][name]["description"] = re.sub(r"\s+", " ", text)
    return description


def _schema_name(command: Command, prints: Prints) -> str:
    return f"{command.name.replace(' ', '-')}{prints.beside.removeprefix('-')}.json"


def _lines() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Generated from the code by `make docs`."
    yield ""
    yield "## Commands"
    for verb in VERBS:
        commands = list(commands_of(verb))
        if len(commands) > 1:
            yield from ("", f"### `metasync {verb}`", "", sentence(VERBS[verb]))
        for command in commands:
            yield from _command(command, "###" if len(commands) == 1 else "####")
    yield from ("", "## Settings", "")
    yield "The first source that has a setting wins: a flag of the commands that use it, the environment, `.env`,"
    yield "`metasync.toml` (by the names in lower case, without `METASYNC_`), then a file of that name in"
    yield "`METASYNC_SECRETS_DIR`. Durations are seconds, or such as `250ms`, `30s`, `15m`, `2h`, `1d`; the words that"
    yield "a setting may be are taken in any case. An unknown `METASYNC_` variable is an error."
    yield ""
    yield "Secrets have no flag: everybody on the machine could read them in `ps`. So a queue's URL that has a password"
    yield "in it is better given in another way than as a flag, too."
    yield from ("", "| variable | flag | default | meaning |", "|---|---|---|---|")
    for name, field in Settings.model_fields.items():
        option = "none: a secret" if is_secret(name) else f"`{flag(name)}`"
        yield _row(f"`{variable(name)}`", option, _code(default_text(name)), field.description or "")
    yield from ("", "## Exit codes", "", *_exit_codes())
    yield from ("", "## How a run ends", "")
    yield "`ending` in `run.summary` and in what `metasync apply --json` prints, with the exit code that it comes to;"
    yield "`apply` makes a 0 of refused lines a 3."
    yield from ("", "| ending | meaning | exit code |", "|---|---|---|")
    yield from (_row(f"`{ending}`", *texts) for ending, texts in ENDINGS.items())
    yield from ("", "## Log events", "")
    yield "One JSON object a line on standard error, or readable lines on a terminal. Each has `time`, `level` and"
    yield "`event`; `change.*`, but `change.crashed`, also `completion_id`, `change_ids`, `changes` (how many), `keys`"
    yield "(names, not values), `status`, `request_id`, `duration_ms` and `queue_lag_ms`, of changes of a batch"
    yield "`batch`, with `METASYNC_LOG_VALUES` `metadata`, and where it is traced `trace_id` and `span_id`."
    yield ""
    yield "At a terminal, `NO_COLOR` or `TERM=dumb` leave out the colours, `TERM=dumb` the line of progress, too."
    yield ""
    yield f"Their schema: [schemas/{LOG_SCHEMA}](schemas/{LOG_SCHEMA})."
    yield from ("", "| event | when | fields |", "|---|---|---|")
    yield from (_row(f"`{event}`", when, fields or "none") for event, (when, fields) in EVENTS.items())
    yield from ("", "## Results", "")
    yield "A line of the file that `--results` of `apply` and `run` names, [as told there](results.md):"
    yield f"[schemas/{RESULTS_SCHEMA}](schemas/{RESULTS_SCHEMA})."
    yield from ("", "## Metrics", "")
    yield "At `/metrics` of a daemon with `METASYNC_HTTP_PORT` set, besides those of the process (`process_`) and of"
    yield "Python's garbage collector (`python_gc_`)."
    yield from ("", "| metric | type | labels | meaning |", "|---|---|---|---|")
    for family in families(EVERYTHING):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = ", ".join(f"`{name}`" for name in family._labelnames)  # noqa: SLF001 -- as written in our code
        yield f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |"


def _command(command: Command, heading: str) -> Iterator[str]:
    yield from ("", f"{heading} `metasync {command.name}`", "", sentence(command.summary))
    arguments = list(arguments_of(command.model))
    if arguments:
        yield from ("", "| argument | default | meaning |", "|---|---|---|")
        yield from map(_argument_row, arguments)
    for argument in arguments:
        if argument.keys:
            yield from ("", f"| `{argument.name}` {argument.metavar} | meaning |", "|---|---|")
            yield from (_row(f"`{name}`", meaning) for name, meaning in argument.keys.items())
    if settings := list(setting_arguments(command.model)):
        yield from ("", f"[Settings](#settings): {_codes(name for one in settings for name in one.names)}.")
    for prints in printed(command.model):
        name = _schema_name(command, prints)
        beside = f", with `{prints.beside}`" if prints.beside else ""
        yield from ("", f"What `--json` prints{beside}: [schemas/{name}](schemas/{name}).")


def _argument_row(argument: Argument) -> str:
    value = argument.metavar if argument.metavar != argument.name else "..." * argument.many
    choices = f"; one of {_codes(argument.choices)}" if argument.choices else ""
    names = ", ".join(argument.names) if argument.short else argument.name
    return _row(f"`{names} {value}`".replace(" `", "`"), argument.default, argument.help + choices)


def _exit_codes() -> Iterator[str]:
    yield from ("| code | meaning |", "|---|---|")
    yield from (_row(str(code.value), code.meaning) for code in Exit)


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def main() -> None:
    """Write what is generated, and remove what is not any more."""
    TARGET.write_text(render())
    SCHEMAS.mkdir(exist_ok=True)
    wanted = schemas()
    for path in SCHEMAS.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (SCHEMAS / name).write_text(text)


if __name__ == "__main__":
    main()
