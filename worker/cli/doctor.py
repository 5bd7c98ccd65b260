"""`metasync doctor`: check everything that a run needs, and say what to do."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from config.settings import ConfigurationError, Loaded, Settings
from worker.changes.change import COMPLETION_ID
from worker.cli import loop
from worker.cli.checkup.check import Check, State, failure, ok, warning
from worker.cli.checkup.configuration import read_settings
from worker.cli.checkup.findings import Findings
from worker.cli.checkup.network import check_way
from worker.cli.checkup.probe import WriteProbe
from worker.cli.checkup.service import check_service
from worker.cli.checkup.software import check_software
from worker.cli.checkup.store import check_queue
from worker.cli.checkup.writing import ProbeClient
from worker.cli.exits import Exit
from worker.cli.flags import ALL, Configured, Prints
from worker.cli.job import configure_logs
from worker.cli.output import flush, needing_a_reader, say, say_json, tell
from worker.cli.signals import Stopped
from worker.flags import Flag

_WIDTHS = (8, 12)


def _completion_id(text: str) -> str:
    if not COMPLETION_ID.fullmatch(text):
        raise ValueError(f"{text[:80]!a} is not the id of a completion")
    return text


@dataclass(frozen=True, slots=True)
class Report:
    """All checks.

    Args:
        checks: in their order; checks that an earlier failure makes impossible are missing.
        probe: the findings of `--write-probe`; null without it.
    """

    checks: Sequence[Check]
    probe: Findings | None
    exit_code: Exit


@dataclass(frozen=True, slots=True)
class Doctor(Configured):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = ALL

    completion: Annotated[
        str | None, Flag("read this completion, instead of the newest one", metavar="ID", parse=_completion_id)
    ] = None
    write_probe: Annotated[
        bool,
        Flag("find out how updates of that completion behave: writes to it, and restores its metadata"),
    ] = False
    json: Annotated[bool, Flag("print all checks as one JSON object"), Prints(Report)] = False


MODEL = Doctor
EPILOG = "With --write-probe, no other program may write to the completion, and it needs 2 to 16 metadata keys."


def execute(arguments: Doctor) -> int:
    """Run all checks; print a line for each, with advice."""
    if arguments.write_probe and arguments.completion is None:
        raise ConfigurationError("--write-probe needs --completion ID, the completion to write to")
    with needing_a_reader():
        return loop.run(_examine(arguments))


async def _examine(arguments: Doctor) -> Exit:
    checks: list[Check] = []

    def found(check: Check) -> None:
        checks.append(check)
        if not arguments.json:
            say(_text(check))
            flush()

    probe = await _look(arguments, checks, found)
    code = _exit_code(checks)
    if arguments.json:
        say_json(Report(checks, probe.findings if probe else None, code))
        flush()
    if probe is not None and probe.signal is not None:
        raise Stopped(probe.signal)
    return code


async def _look(arguments: Doctor, checks: Sequence[Check], found: Callable[[Check], None]) -> WriteProbe | None:
    """Run all checks; return the write probe, if it ran."""
    for check in check_software():
        found(check)
    loaded, told = read_settings(arguments.load)
    for check in told:
        found(check)
    if loaded is None:
        return None
    configure_logs(loaded.settings, level="error")
    async for check in _outside(loaded, arguments.completion):
        found(check)
    if not arguments.write_probe:
        return None
    probe = await _probe(loaded.settings, str(arguments.completion), checks)
    for check in _probe_checks(probe, loaded.settings):
        found(check)
    return probe


async def _outside(loaded: Loaded, completion_id: str | None) -> AsyncIterator[Check]:
    settings = loaded.settings
    for check in await check_queue(settings):
        yield check
    reached = True
    async for check in check_way(settings):
        reached = reached and check.state is not State.FAILURE
        yield check
    if reached and settings.openai_api_key is not None:
        async for check in check_service(settings, settings.openai_api_key.get_secret_value(), completion_id):
            yield check


async def _probe(settings: Settings, completion_id: str, checks: Sequence[Check]) -> WriteProbe | None:
    """Run the write probe, unless a check that it needs has failed."""
    failed = any(check.state is State.FAILURE and check.name != "queue" for check in checks)
    if settings.openai_api_key is None or failed:
        return None
    async with ProbeClient(
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key.get_secret_value(),
        organization=settings.openai_org_id,
        project=settings.openai_project_id,
        auth=settings.auth,
        trust_env=settings.trust_env,
    ) as client:
        probe = WriteProbe(
            client,
            completion_id,
            timeout_seconds=settings.request_timeout,
            patience_seconds=settings.read_lag,
            tell=tell,
        )
        await probe.run()
    return probe


def _probe_checks(probe: WriteProbe | None, settings: Settings) -> Iterator[Check]:
    name = "write probe"
    if probe is None:
        yield failure(name, "not run, because a check that it needs has failed; nothing was written")
        return
    found = probe.findings
    if found.semantics is not None:
        fate = "kept" if found.semantics == "merge" else "dropped"
        detail = f"the service's semantics are {found.semantics}: keys that an update does not name are {fate}"
        if settings.semantics == found.semantics:
            yield ok(name, detail)
        else:
            yield warning(name, detail, f"set METASYNC_SEMANTICS={found.semantics}; it is {settings.semantics}")
    for what, effect in (
        ("null as a value", found.null_value),
        ("an empty map", found.empty_metadata),
        ("null for a map", found.null_metadata),
    ):
        if effect is not None:
            yield ok(name, f"{what}: {effect}")
    if found.read_lag_seconds is not None:
        shown = f"the answer to it showed {'no' if found.answer == 'none' else found.answer} metadata"
        yield ok(name, f"reads showed an update within {found.read_lag_seconds:g} s; {shown}")
    if found.error is not None:
        yield failure(name, found.error, halts=probe.halts)
    if found.kept_in is not None:
        yield failure(name, "the metadata may not be restored", f"`metasync apply {found.kept_in}` restores it")
    else:
        yield ok(name, "the original metadata is restored" if probe.wrote else "nothing was written")


def _exit_code(checks: Sequence[Check]) -> Exit:
    if any(check.halts for check in checks):
        return Exit.HALTED
    return Exit.NOT_ALL if any(check.state is State.FAILURE for check in checks) else Exit.DONE


def _text(check: Check) -> str:
    first, second = _WIDTHS
    line = f"{check.state:<{first}} {check.name:<{second}} {check.detail}"
    return f"{line}\n{'':<{first + second + 1}} -> {check.advice}" if check.advice else line
