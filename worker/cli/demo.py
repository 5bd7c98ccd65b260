"""`metasync demo`: the main job against a simulated service, every result checked."""

import json
import math
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import worker
from config.settings import load
from worker.changes import MetadataChange
from worker.changes.files import ChangeFile
from worker.changes.patience import Patience
from worker.cli.apply import figures_text
from worker.cli.batches import BatchState
from worker.cli.exits import Exit
from worker.cli.inputs import Intake
from worker.cli.intake import Enqueued, take_in
from worker.cli.job import Job, configure_logs, run_async
from worker.cli.output import say
from worker.cli.progress import Terminal, show_progress
from worker.cli.session import work
from worker.cli.trying import compared, pulled
from worker.engine import Summary
from worker.flags import Flag
from worker.queue import Batch, DeadSelection, PendingSelection, Store, open_queue
from worker.simulator import Delay, Fault, Options, RateLimit, Simulator
from worker.temporary import temporary_folder
from worker.terminal import is_terminal

_FILES = ("labels.jsonl", "grades.csv", "redactions.jsonl")
_LINES = 2_000  # in the sample files, without headers; these of them are broken on purpose:
_BROKEN_LINES = 12
_MAX_PAIRS = 16

_FAULTS = (
    Fault("internal_error", 0.01),
    Fault("bad_gateway", 0.01),
    Fault("overloaded", 0.01),
    Fault("dropped", 0.01),
    Fault("cut_off", 0.01),
    Fault("malformed", 0.01),
    Fault("empty", 0.005),
)
_LIMIT = RateLimit(requests_per_minute=6_000, hint="ms")
_SERVICE = Options(
    seed=7,
    latency=Delay(0.05, spread=0.3),
    update_latency=Delay(0.1, spread=0.3),
    limit=_LIMIT,
    faults=_FAULTS,
)
_LAG_SECONDS = 1.5
_LATE_EVERY = 4
_HANDFUL = 8
_NOT_FOUND_GRACE = "6s"
_BATCH = "samples"
_WRONG = 50  # changes of a file that is withdrawn
_BACKFILL = 150  # changes that an urgent one overtakes


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that must hold at the end."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Demo:
    """The verb's arguments."""

    verbose: Annotated[bool, Flag("log every outcome")] = False


MODEL = Demo


def execute(arguments: Demo) -> int:
    """Start the simulator, enqueue the samples, apply them, check every completion."""
    return run_async(_demo(verbose=arguments.verbose))


async def _demo(*, verbose: bool) -> int:
    with temporary_folder("metasync-demo-") as folder:
        queue_url = f"sqlite:///{folder}/queue.db"
        async with Simulator(_SERVICE) as simulator, open_queue(queue_url) as queue:
            held = _seed(simulator)
            share = sum(fault.share for fault in _FAULTS)
            say(
                f"simulator  {simulator.base_url}: {len(held)} completions, some visible after {_LAG_SECONDS} s, "
                f"{share:.1%} faults, {_LIMIT.requests_per_minute:,.0f} requests a minute"
            )
            intake = Intake([str(_samples() / name) for name in _FILES], batch=_BATCH)
            started_at = time.monotonic()
            with closing(Patience()) as patience:
                enqueued = await take_in(queue, intake, patience)
            enqueue_seconds = time.monotonic() - started_at
            job = _job(simulator.base_url, verbose=verbose)
            handful = _handful(held)
            before = await pulled(job, list(handful), f"{folder}/before.jsonl")
            summary = await _drain(queue, job)
            checks = [check async for check in _checks(queue, simulator, held, enqueued, summary)]
            checks += await _batches(queue, simulator, job, handful=handful, held=held)
            checks += await _there_and_back(queue, simulator, job, handful=handful, before=before, held=held)
    say(figures_text(summary, enqueued, enqueue_seconds))  # no next step: the queue is deleted by now
    for check in checks:
        say(f"{'ok  ' if check.holds else 'FAIL'}  {check.name}: {check.detail}")
    return Exit.DONE if all(check.holds for check in checks) else Exit.INTERNAL_ERROR


def _samples() -> Path:
    """Return the folder of samples: beside the code in a checkout, else in the installed package."""
    package = Path(worker.__file__).parent
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent / "examples"


def _seed(simulator: Simulator) -> dict[str, dict[str, str]]:
    """Store the samples' completions; every fourth is not visible yet."""
    held = {}
    for number, line in enumerate((_samples() / "completions.jsonl").read_text().splitlines()):
        completion = json.loads(line)
        held[completion["id"]] = completion["metadata"]
        lag_seconds = _LAG_SECONDS if number % _LATE_EVERY == 0 else 0.0
        simulator.seed(completion["id"], completion["metadata"], lag_seconds=lag_seconds)
    return held


def _job(base_url: str, *, verbose: bool) -> Job:
    flags = {
        "openai_api_key": "sk-demo",
        "openai_base_url": base_url,
        "not_found_grace": _NOT_FOUND_GRACE,
        "log_level": "info" if verbose else "error",
    }
    return Job(load(flags).settings, lambda: load(flags), drain=True)


async def _drain(queue: Store, job: Job) -> Summary:
    terminal = Terminal() if is_terminal(sys.stderr) else None
    configure_logs(job.settings, terminal=terminal)
    pending = (await queue.status()).pending
    return await work(queue, job, show_progress(pending) if terminal else None)


def _handful(held: Mapping[str, Mapping[str, str]]) -> dict[str, list[MetadataChange]]:
    """Return a few completions, with their changes, that are visible from the start and have only valid changes."""
    _, dead = _one_by_one(held)
    left_out = {completion_id for completion_id, _ in dead} | {*islice(held, 0, None, _LATE_EVERY)}
    handful: dict[str, list[MetadataChange]] = {}
    for change in _good_changes():
        if change.completion_id not in left_out and (change.completion_id in handful or len(handful) < _HANDFUL):
            handful.setdefault(change.completion_id, []).append(change)
    return handful


async def _batches(
    queue: Store,
    simulator: Simulator,
    job: Job,
    *,
    handful: Mapping[str, list[MetadataChange]],
    held: Mapping[str, Mapping[str, str]],
) -> list[Check]:
    """Show batches: inspect one, withdraw one, hurry one; leave a handful of completions alone."""
    [samples] = await queue.batches(_BATCH)
    wanted, _ = _one_by_one(held)
    ids = [each for each, metadata in wanted.items() if len(metadata) < _MAX_PAIRS and each not in handful]
    await queue.put([MetadataChange(each, {"wrong": "yes"}) for each in ids[:_WRONG]], batch="wrong-file")
    went = (await queue.withdraw(PendingSelection(batch="wrong-file"))).withdrawn
    await queue.put([MetadataChange(each, {"checked": "yes"}) for each in ids[:_BACKFILL]], batch="backfill")
    await queue.put([MetadataChange(ids[-1], {"checked": "now"})], batch="hurried", urgent=True)
    await _drain(queue, job)
    found = simulator.all_metadata()
    sent = sum("wrong" in metadata for metadata in found.values())
    [backfill], [hurried] = await queue.batches("backfill"), await queue.batches("hurried")
    took, after = _seconds(backfill, backfill), _seconds(backfill, hurried)
    return [
        Check("batch", not samples.pending, f"{samples.name}: {BatchState.of(samples).counts_text}"),
        Check(
            "withdrawn", (went, sent) == (_WRONG, 0), f"{went} changes of a wrong file of {_WRONG}, {sent} were sent"
        ),
        Check(
            "urgent",
            (hurried.applied, backfill.applied) == (1, _BACKFILL) and after < took / 2,
            f"done after {max(0.0, after):.1f} s, the {_BACKFILL} that came before it after {took:.1f} s",
        ),
    ]


def _seconds(first: Batch, last: Batch) -> float:
    """Return the time from the first batch's first applied change to the last batch's last one."""
    return (last.last_done_at or math.inf) - (first.first_done_at or 0.0)


async def _there_and_back(
    queue: Store,
    simulator: Simulator,
    job: Job,
    *,
    handful: Mapping[str, list[MetadataChange]],
    before: Sequence[MetadataChange],
    held: Mapping[str, Mapping[str, str]],
) -> list[Check]:
    """Check `pull`, `diff`, and `apply` of the pulled lines on a handful of completions."""
    counts = await compared(job, [change for changes in handful.values() for change in changes])
    in_sync = Check("diff", counts.in_sync == len(handful), f"{counts.in_sync} of a handful of {len(handful)} in sync")
    await queue.put(list(before))
    await _drain(queue, job)
    found = simulator.all_metadata()
    back = sum(found[completion_id] == held[completion_id] for completion_id in handful)
    return [in_sync, Check("back", back == len(handful), f"{back} of these are as they were pulled")]


async def _checks(
    queue: Store,
    simulator: Simulator,
    held: Mapping[str, Mapping[str, str]],
    enqueued: Enqueued,
    summary: Summary,
) -> AsyncIterator[Check]:
    wanted, expected_dead = _one_by_one(held)
    found = simulator.all_metadata()
    right = sum(found[completion_id] == metadata for completion_id, metadata in wanted.items())
    yield Check("completions", found == wanted, f"{right} of {len(wanted)} have exactly the metadata that was wanted")
    dead = Counter([(letter.completion_id, letter.reason) async for letter in queue.dead_letters(DeadSelection())])
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.totals.reasons.items()))
    yield Check("dead letters", dead == expected_dead, f"{reasons}, each as it had to be")
    taken = enqueued.added + enqueued.duplicates + enqueued.refused
    yield Check(
        "lines",
        (taken, enqueued.refused, enqueued.duplicates) == (_LINES, _BROKEN_LINES, 0),
        f"{enqueued.added:,} of {taken:,} were stored, the {enqueued.refused} broken ones refused by name",
    )
    done = summary.totals.changes
    yield Check("changes", summary.empty and done == enqueued.added, f"{done:,} of {enqueued.added:,} accounted for")
    overlaps = len(simulator.violations)
    yield Check("one writer", not overlaps, f"{overlaps} times two updates of one completion were in flight together")
    early = simulator.counters.started_while_closed
    yield Check("retry-after", not early, f"{early} requests while the service had asked to wait")


def _one_by_one(
    held: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, dict[str, str]], Counter[tuple[str, str]]]:
    """Compute the expected result the slow, obvious way: every completion's metadata, every dead letter."""
    state = {completion_id: dict(metadata) for completion_id, metadata in held.items()}
    dead: Counter[tuple[str, str]] = Counter()
    for change in _good_changes():
        before = state.get(change.completion_id)
        if before is None:
            dead[change.completion_id, "not_found"] += 1
            continue
        after = dict(before) if change.mode == "merge" else {}
        for key, value in change.metadata.items():
            if value is not None:
                after[key] = value
            elif key in after:
                del after[key]
        if len(after) > _MAX_PAIRS:
            dead[change.completion_id, "too_many_keys"] += 1
        else:
            state[change.completion_id] = after
    return state, dead


def _good_changes() -> Iterator[MetadataChange]:
    for name in _FILES:
        with ChangeFile.open(str(_samples() / name)) as file:
            yield from (item for _, item in file if isinstance(item, MetadataChange))
