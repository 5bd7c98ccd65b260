"""What `enqueue` says of lines that the queue may have stored, though it gave no answer."""

import asyncio
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from worker.changes import MetadataChange
from worker.changes.patience import Patience
from worker.changes.reading import Reading
from worker.cli.inputs import Intake, Place
from worker.cli.intake import Enqueued, account, account_of_cut, take_in
from worker.queue import QueueUnavailable, QueueUnwritable, Stored

_MAY_BE_STORED = (
    "may be stored; run the same command again with --batch labels: a line with a change_id is not stored twice"
)


class _Sink:
    """Takes changes, and then does what it is told instead of answering."""

    def __init__(self, error: Exception | None) -> None:
        self.taken: list[MetadataChange] = []
        self.has_taken = asyncio.Event()
        self._error = error

    async def put(self, changes: Sequence[MetadataChange], *, batch: str | None, urgent: bool) -> Stored:
        del batch, urgent
        self.taken += changes
        self.has_taken.set()
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        raise AssertionError

    async def conflicts(self, changes: Sequence[MetadataChange]) -> tuple[int, ...]:
        del changes
        return ()


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    """Three lines, which are one piece."""
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"completion_id": f"c{n}", "metadata": {"n": "1"}}) + "\n" for n in range(3)))
    return Intake((str(path),), Reading("merge"), batch="labels")


async def test_the_first_lines_may_be_stored_where_the_answer_is_lost(intake: Intake) -> None:
    sink = _Sink(QueueUnavailable("the queue did not answer"))
    counts = await take_in(sink, intake, Patience())
    assert len(sink.taken) == 3
    assert counts.exit_code == 75
    assert account(counts) == f"metasync: the queue did not answer: lines up to {intake.paths[0]}:3 {_MAY_BE_STORED}"


@pytest.mark.parametrize("name", ["labels.jsonl", "labels of monday (1).jsonl", "<stdin>"])
def test_the_flags_that_continue_can_be_pasted_into_a_shell(name: str) -> None:
    said = account(Enqueued(added=3, up_to=Place(name, 3), error="interrupted", batch="labels"))
    flags = said.rpartition("; ")[2].removesuffix(" continues after that")
    assert shlex.split(flags) == ["--resume-from", f"{name}:3", "--batch", "labels"]


async def test_nothing_is_stored_where_the_disk_is_full(intake: Intake) -> None:
    counts = await take_in(_Sink(QueueUnwritable("the disk is full")), intake, Patience())
    assert account(counts) == "metasync: the disk is full: nothing was stored"


async def test_a_second_signal_tells_of_the_lines_that_are_under_way(intake: Intake) -> None:
    sink, counts = _Sink(None), Enqueued()
    taking = asyncio.create_task(take_in(sink, intake, Patience(), counts))
    assert account_of_cut(counts, "interrupted twice") == "interrupted twice: nothing was stored"
    await sink.has_taken.wait()
    assert account_of_cut(counts, "interrupted twice") == (
        f"interrupted twice: lines up to {intake.paths[0]}:3 {_MAY_BE_STORED}"
    )
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
