"""Enqueue change files: store valid changes in order, and report counts however it ends."""

import asyncio
import shlex
import sys
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
from tqdm import tqdm

from config import sink
from worker.changes import MetadataChange
from worker.changes.files import Refusal, RejectsFile, UnwritableRejects
from worker.changes.patience import Patience, Stopped
from worker.cli.exits import Exit
from worker.cli.failing import code_of
from worker.cli.inputs import InputError, Inputs, Intake, Place
from worker.cli.output import counted, tell
from worker.cli.pieces import Piece, pieces
from worker.cli.refused import Line, Shown
from worker.queue import QueueError, QueueUnusable, QueueUnwritable, Stored
from worker.temporary import NoRoom
from worker.terminal import columns, is_terminal
from worker.terminal import shown as quoted
from worker.threads import NoThread, in_thread


@dataclass(frozen=True, slots=True)
class Spread:
    """How the changes are distributed over completions."""

    completions: int
    changes_per_completion: float
    most_changes_of_one: int


@dataclass(slots=True)
class Enqueued:
    """Counts of lines, up to the last line whose result is known.

    Args:
        duplicates: their change_id is pending, or was applied recently, with any content.
        applied_before: the duplicates whose change_id was applied before. Their content is not compared: a correction
            under the same change_id is not applied.
        pending_elsewhere: the duplicates that are pending in another batch, or in none.
        pending_in: the same by the name of that batch; those in no batch are not counted here.
        refused: refused lines and files.
        blank: skipped CSV rows: blank, or setting nothing in mode merge.
        up_to: the last handled line; null if none was.
        unsure_up_to: lines after `up_to`, up to this one, may be stored: the queue gave no answer.
        refusals: the first refused lines.
        checked: with `--check`, the distribution of changes; nothing was stored.
        error: why the rest was not stored; null if all was.
        batch: the changes' batch; null if no change was stored.
    """

    added: int = 0
    duplicates: int = 0
    refused: int = 0
    blank: int = 0
    up_to: Place | None = None
    unsure_up_to: Place | None = None
    refusals: list[Line] = field(default_factory=list)
    checked: Spread | None = None
    error: str | None = None
    exit_code: Exit = Exit.DONE
    batch: str | None = None
    applied_before: int = 0
    pending_elsewhere: int = 0
    pending_in: dict[str, int] = field(default_factory=dict)

    @property
    def stored(self) -> int:
        """How many changes are in the queue now, including those stored before."""
        return self.added + self.duplicates

    def add(self, stored: Stored) -> None:
        """Count what became of some changes."""
        self.added += stored.added
        self.duplicates += stored.duplicates
        self.refused += len(stored.conflicts)
        self.applied_before += stored.applied_before
        for batch, count in stored.pending_in.items():
            if batch != self.batch:
                self.pending_elsewhere += count
                if batch is not None:
                    self.pending_in[batch] = self.pending_in.get(batch, 0) + count

    def fail(self, code: Exit, error: str) -> None:
        """Record why the rest was not stored. The exit code tells whether some changes are stored already."""
        self.error = error
        self.exit_code = Exit.RUN_AGAIN if self.stored else code


_NOTHING = "nothing was stored"
_CHECKED_AT_ONCE = 1_000


class Sink(Protocol):
    """A receiver of changes: a queue, or a counter."""

    async def put(self, changes: Sequence[MetadataChange], *, batch: str | None, urgent: bool) -> Stored:
        """See `Queue.put`."""

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        """See `Queue.conflicts`."""


class _Failed(Exception):
    """The rest is not stored."""

    def __init__(self, code: Exit, reason: str) -> None:
        super().__init__(reason)
        self.code = code


async def take_in(
    sink: Sink,
    intake: Intake,
    patience: Patience,
    counts: Enqueued | None = None,
    on_stored: Callable[[Piece], None] | None = None,
) -> Enqueued:
    """Store every valid change of the files, in order, as a stream; show refused lines.

    Args:
        patience: stopped to end early.
        counts: updated as changes are stored, so that others can show progress.
        on_stored: called with each piece whose changes are stored.
    """
    counts = counts or Enqueued()
    shown = Shown()
    counts.refusals = shown.lines
    try:
        with ExitStack() as stack:
            inputs = stack.enter_context(closing(Inputs(intake, patience)))
            rejects = _rejects(stack, intake)
            taking = _Taking(sink, intake, inputs, rejects, shown, patience, counts, on_stored)
            if intake.strict:
                await taking.check()
            await taking.store(strict=intake.strict)
    except InputError as error:
        counts.fail(Exit.USAGE, str(error))
    except UnwritableRejects as error:
        counts.fail(Exit.USAGE, f"metasync: {error}")
    except (NoRoom, NoThread) as error:
        counts.fail(Exit.RUN_AGAIN, f"metasync: {error}\n{_NOTHING}")
    except Stopped:
        counts.fail(Exit.RUN_AGAIN, "interrupted")
    except _Failed as failed:
        counts.fail(failed.code, str(failed))
    else:
        _end(counts)
    shown.end(has_file=intake.rejects_path is not None)
    _tell_of_applied(counts)
    return counts


def _rejects(stack: ExitStack, intake: Intake) -> RejectsFile | None:
    if intake.rejects_path is None:
        return None
    file = RejectsFile(intake.rejects_path, inputs=intake.paths, append=intake.after is not None)
    return stack.enter_context(file)


def _end(counts: Enqueued) -> None:
    """Record that all input was read."""
    if not counts.refused:
        return
    is_unread = all(line.line == 0 and line.record is None for line in counts.refusals)
    if is_unread and not counts.stored and not counts.blank:
        counts.fail(Exit.USAGE, _NOTHING)
    else:
        counts.exit_code = Exit.NOT_ALL


@dataclass(frozen=True, slots=True)
class _Taking:
    """The state of one intake."""

    sink: Sink
    intake: Intake
    inputs: Inputs
    rejects: RejectsFile | None
    shown: Shown
    patience: Patience
    counts: Enqueued
    on_stored: Callable[[Piece], None] | None

    async def check(self) -> None:
        """Check all input before anything is stored.

        Raises:
            InputError: a line is refused, or conflicts with an earlier line or a pending change.
            _Failed: the queue did not answer.
        """
        from worker.cli.tally import Tally  # noqa: PLC0415 -- imports this module

        loop = asyncio.get_running_loop()
        with closing(Tally()) as before:

            async def find(changes: Sequence[MetadataChange]) -> set[int]:
                return {
                    *(await before.put(changes, batch=None, urgent=False)).conflicts,
                    *await self.sink.conflicts(changes),
                }

            def conflicts(changes: Sequence[MetadataChange]) -> set[int]:
                return asyncio.run_coroutine_threadsafe(find(changes), loop).result()

            try:
                self.counts.refused = await in_thread(self._refuse_all, conflicts)
            except QueueError as error:
                raise self._failed(error) from None
        if self.counts.refused:
            raise InputError(f"{_NOTHING}: {counted(self.counts.refused, 'line')} refused")

    async def store(self, *, strict: bool) -> None:
        """Store all changes, piece by piece.

        Raises:
            _Failed: the rest is not stored.
            Stopped: it was stopped early.
        """
        size = self.inputs.size_bytes or None
        shown = sys.stderr is not None and is_terminal(sys.stderr)
        with tqdm(
            total=size,
            unit="B",
            unit_scale=True,
            disable=not shown,
            leave=False,
            ncols=columns() - 1,
            file=sink.stream,  # the stream of the log's lines, which appear above it
        ) as bar:
            async with pieces(self.inputs, self.patience) as stream:
                async for piece in stream:
                    await self._store(piece)
                    bar.update(piece.bytes_read - bar.n)
                    if strict and self.counts.refused:
                        raise _Failed(Exit.USAGE, "a line is refused, and nothing after it was stored")
                    self.patience.check()
                self.patience.check()

    def _refuse_all(self, conflicts: Callable[[Sequence[MetadataChange]], set[int]]) -> int:
        refused = 0
        named: list[tuple[MetadataChange, str, int]] = []  # changes with a change_id
        for name, items in self.inputs.files(keep=True):
            for number, item in items:
                self.patience.check()
                if isinstance(item, Refusal):
                    refused += 1
                    self._refuse(item)
                elif item is not None and item.change_id is not None:
                    named.append((item, name, number))
                    if len(named) == _CHECKED_AT_ONCE:
                        refused += self._refuse_conflicts(named, conflicts)
                        named.clear()
        return refused + self._refuse_conflicts(named, conflicts)

    def _refuse_conflicts(
        self,
        named: Sequence[tuple[MetadataChange, str, int]],
        conflicts: Callable[[Sequence[MetadataChange]], set[int]],
    ) -> int:
        found = sorted(conflicts([change for change, _, _ in named])) if named else []
        for position in found:
            self._refuse(_conflict(*named[position], self.inputs.with_records))
        return len(found)

    async def _store(self, piece: Piece) -> None:
        """Store a piece. Refused lines are written first: if that fails, the piece counts as unread."""
        last = Place(*piece.last) if piece.last else self.counts.up_to
        for refusal in piece.refused:
            self._refuse(refusal)
        stored = await self._put(piece.changes, last)
        if self.on_stored is not None:
            self.on_stored(piece)
        self.counts.add(stored)
        self.counts.refused += len(piece.refused)
        self.counts.blank += piece.blank
        self.counts.up_to = last
        for position in stored.conflicts:
            name, number = piece.places[position]
            self._refuse(_conflict(piece.changes[position], name, number, self.inputs.with_records))

    async def _put(self, changes: Sequence[MetadataChange], last: Place | None) -> Stored:
        if not changes:
            return Stored(0, 0)
        self.counts.batch = self.intake.batch
        self.counts.unsure_up_to = last  # a second signal ends the process before the answer
        try:
            stored = await self.sink.put(changes, batch=self.intake.batch, urgent=self.intake.urgent)
        except QueueError as error:
            failed = self._failed(error)
            if failed.code is not Exit.RUN_AGAIN or isinstance(error, QueueUnusable | QueueUnwritable):
                self.counts.unsure_up_to = None
            raise failed from None
        self.counts.unsure_up_to = None
        return stored

    @staticmethod
    def _failed(error: QueueError) -> _Failed:
        return _Failed(code_of(error), f"metasync: {error}")

    def _refuse(self, refusal: Refusal) -> None:
        self.shown.add(refusal)
        if self.rejects:
            self.rejects.write(refusal)


def _conflict(change: MetadataChange, name: str, number: int, with_records: Container[str]) -> Refusal:
    """Return the refusal of a change whose change_id is pending with other content."""
    reason = f"change_id {quoted(change.change_id)} is pending with other content: give this change another id"
    raw = msgspec.json.encode(change)
    if name in with_records:
        return Refusal(name, 0, reason, raw, record=number)
    return Refusal(name, number, reason, raw)


def account(counts: Enqueued) -> str:
    """Format the counts on one line; if the rest was not stored, with the reason and the next step."""
    added = "added" if counts.checked is None else "would be added"
    words = [f"{counts.added:,} {added}", f"{counts.duplicates:,} known already", f"{counts.refused:,} refused"]
    if counts.applied_before:
        words[1] += f" ({counts.applied_before:,} applied before)"
    if counts.blank:
        words.append(f"{counts.blank:,} blank")
    if counts.error is None:
        return ", ".join(words) if counts.checked is None else f"{', '.join(words)}; {_spread(counts.checked)}"
    batch = f" --batch {counts.batch}" if counts.batch else ""
    if counts.up_to is None and counts.unsure_up_to is not None:
        again = f"run the same command again with{batch}: a line with a change_id is not stored twice"
        return f"{counts.error}: lines up to {counts.unsure_up_to} may be stored; {again}"
    if counts.up_to is None:
        return counts.error if _NOTHING in counts.error else f"{counts.error}: {_NOTHING}"
    if not counts.duplicates:
        del words[1]
    unsure = f"; lines after that, up to {counts.unsure_up_to}, may be stored" if counts.unsure_up_to else ""
    way_on = f"--resume-from {shlex.quote(str(counts.up_to))}{batch} continues after that"
    return f"{counts.error}: {', '.join(words)}, up to {counts.up_to}{unsure}; {way_on}"


def account_of_cut(counts: Enqueued, error: str) -> str:
    """Format the counts of an intake that a signal ends at once: what is under way may be stored."""
    return account(replace(counts, error=error))


def _tell_of_applied(counts: Enqueued) -> None:
    """Say that a correction with the change_id of an applied change is not applied: nothing else reports it."""
    if counts.applied_before:
        tell(
            f"{counts.applied_before:,} were not stored: a change was applied under their change_id before, whatever it"
            " said; a correction needs a change_id of its own"
        )


def account_with_batch(counts: Enqueued) -> str:
    """Format the counts, with the batch on a second line."""
    return f"{account(counts)}\nbatch {counts.batch}" if counts.batch is not None else account(counts)


def _spread(spread: Spread) -> str:
    return (
        f"{counted(spread.completions, 'completion')}, with {spread.changes_per_completion:,.1f} changes each, "
        f"{spread.most_changes_of_one:,} at most; nothing was stored"
    )
