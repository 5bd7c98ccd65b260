"""`metasync batch` and `pending`: inspect and withdraw changes."""

import asyncio
import gc
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from config import sink
from tests.cli.inside import run
from tests.e2e.processes import KEY, METASYNC, Command, running_simulator, write_changes
from tests.engine.wrapping import WrappedQueue
from tests.queue.helpers import change, claim, died, finished
from worker import open_queue
from worker.cli import dead, enqueue, inputs, signals, withdrawing
from worker.cli.batches import nearest
from worker.cli.confirming import grown
from worker.queue import Claim, DeadSelection, PendingSelection, Revived, Settlement, Store, Withdrawn

URL = "sqlite:///metasync.db"
MADE = re.compile(r"labels-\d{4}-\d\d-\d\dT\d\d:\d\d-[0-9a-f]{4}")
EVIL = "a\x1b[2J\n\u202e\x07"


@pytest.fixture(autouse=True)
def _at_once(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert empty_folder.is_dir()
    monkeypatch.setattr(withdrawing, "_PAUSES_SECONDS", (0.001,) * 5)


class Said:
    """What the command has said."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def run(self, *words: str) -> int:
        code = run(words)
        sink.flush()
        self.out, self.err = self._capfd.readouterr()
        assert "Traceback" not in self.err
        return code

    def json(self, *words: str, code: int = 0) -> Any:
        assert self.run(*words, "--json") == code, self.err
        return json.loads(self.out)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    return Said(capfd)


def _file(count: int, name: str = "labels.jsonl", **more: object) -> str:
    lines = [{"completion_id": f"c-{number}", "metadata": {"label": "x"}} | more for number in range(count)]
    return write_changes(Path(name), lines)


def _enqueue(said: Said, count: int, *words: str) -> None:
    assert said.run("enqueue", _file(count), *words) == 0, said.err


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_file_is_a_batch_whose_name_is_made_and_said(said: Said, count: int) -> None:
    _enqueue(said, count)
    account, batch = said.out.splitlines()
    assert account == f"{count} added, 0 known already, 0 refused"
    assert MADE.fullmatch(name := batch.removeprefix("batch "))
    [listed] = said.json("batch", "list")
    assert (listed["name"], listed["changes"], listed["pending"]) == (name, count, count)
    told = said.json("enqueue", "labels.jsonl")
    assert MADE.fullmatch(told["batch"])
    assert told["batch"] != name  # a name of its own each time
    assert [each["name"] for each in said.json("batch", "list")] == [told["batch"], name]


@pytest.mark.parametrize("count", [1, 3, 50])
def test_several_files_and_calls_are_one_batch_of_the_name_that_is_given(said: Said, count: int) -> None:
    files = [_file(count, "a.jsonl"), _file(count, "b.jsonl")]
    assert said.run("enqueue", *files, "--batch", "spring") == 0
    assert said.out.splitlines()[1] == "batch spring"
    assert said.json("enqueue", files[0], "--batch", "spring")["batch"] == "spring"
    [listed] = said.json("batch", "list")
    assert (listed["name"], listed["changes"]) == ("spring", 3 * count)
    pending = said.json("pending", "list", "--batch", "spring")
    assert {each["batch"] for each in pending} == {"spring"}
    assert len(pending) == 3 * count


def test_no_batch_is_made_if_nothing_is_stored(said: Said) -> None:
    Path("bad.jsonl").write_text("nonsense\n")
    assert said.json("enqueue", "bad.jsonl", "--batch", "spring", code=3)["batch"] is None
    assert said.json("enqueue", _file(3), "--check")["batch"] is None
    assert said.run("migrate") == 0
    assert said.json("batch", "list") == []
    assert said.run("batch", "list") == 0
    assert said.out == ""


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 129, "spring\n", "Frühling", EVIL])
def test_a_name_that_cannot_be_a_batchs_is_refused_before_anything_is_read(said: Said, name: str) -> None:
    assert said.run("enqueue", "nowhere.jsonl", f"--batch={name}") == 2
    assert "argument --batch: " in said.err
    assert not set(said.err) & {"\x1b", "\x07", "\u202e"}


def test_an_intake_that_ends_in_the_middle_goes_on_in_its_batch(said: Said) -> None:
    _file(3)
    with Path("labels.jsonl").open("a") as file:
        file.write("nonsense\n" * 6_000)
    assert said.run("enqueue", "labels.jsonl", "--rejects", "/dev/full", "--batch", "spring") == 2
    assert "--batch" not in said.err  # nothing is in
    code = said.run(
        "enqueue", "labels.jsonl", _file(9_000, "b.jsonl"), "--batch", "spring", "--queue-url", "sqlite:///q.db"
    )
    assert code == 3


async def _letters(queue: Store, count: int, batch: str | None) -> None:
    await queue.put([change(f"d-{number}") for number in range(count)], batch=batch)
    await queue.settle([died(each) for each in await claim(queue)])


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_a_batchs_story_has_counts_reasons_and_the_first_letters(command: Command, count: int) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await _letters(queue, count, "spring")
        await _letters(queue, 2, None)
        await queue.put([change(f"c-{number}") for number in range(count)], batch="spring")
        await queue.settle([finished(await claim_one_of(queue))])
    story = json.loads(command.run("batch", "show", "spring", "--json").stdout)
    story |= story["batch"]
    counts = {name: story[name] for name in ("changes", "pending", "applied", "dead", "reasons")}
    expected = {"changes": 2 * count, "pending": count - 1, "applied": 1, "dead": count}
    assert counts == expected | {"reasons": {"rejected": count}}
    assert len(story["letters"]) == min(5, count)
    assert {letter["batch"] for letter in story["letters"]} == {"spring"}
    text = command.run("batch", "show", "spring").stdout
    assert f"\n{count:,} rejected\n" in text
    assert text.rstrip().endswith("`metasync dead list --batch spring` shows all")
    assert len(json.loads(command.run("dead", "list", "--batch", "spring", "--json").stdout)) == count
    retried = command.run("dead", "retry", "--batch", "spring")
    assert (retried.returncode, retried.stdout) == (0, f"{count} retried, 0 kept\n")
    assert json.loads(command.run("batch", "show", "spring", "--json").stdout)["batch"]["dead"] == 0
    assert command.run("dead", "purge", "--batch", "spring").stdout == "0 purged\n"
    assert json.loads(command.run("status", "--json").stdout)["batches"] == 1


async def claim_one_of(queue: Store) -> Any:
    [claimed] = await claim(queue, 1)
    return claimed


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_batch_is_withdrawn_and_nothing_else(said: Said, count: int) -> None:
    _enqueue(said, count, "--batch", "right")
    _enqueue(said, count, "--batch", "wrong")
    assert said.run("batch", "withdraw", "wrong", "--yes") == 0
    assert said.out == f"{count} withdrawn\n"
    assert {each["batch"] for each in said.json("pending", "list")} == {"right"}
    wrong, right = said.json("batch", "list")
    assert (wrong["withdrawn"], wrong["pending"], right["withdrawn"], right["pending"]) == (count, 0, 0, count)
    assert said.json("batch", "withdraw", "wrong", "--yes") == {
        "withdrawn": 0,
        "in_flight": 0,
        "error": None,
        "exit_code": 0,
    }
    assert said.run("batch", "withdraw", "wrong") == 0  # there is nothing to confirm


@pytest.mark.parametrize("count", [1, 3, 50])
def test_pending_changes_are_found_and_withdrawn_by_what_is_known_of_them(said: Said, count: int) -> None:
    _enqueue(said, count, "--batch", "first")
    lines = [{"completion_id": "c-0", "metadata": {"g": str(n)}, "change_id": f"id-{n}"} for n in range(count)]
    assert (
        said.run("enqueue", write_changes(Path("more.jsonl"), lines), "--batch", "second", "--as-of", "1764324900") == 0
    )
    assert len(said.json("pending", "list")) == 2 * count
    assert len(said.json("pending", "list", "--completion", "c-0")) == count + 1
    [one] = said.json("pending", "list", "--change-id", f"id-{count - 1}")
    assert one["metadata"] == {"g": str(count - 1)}
    assert (one["batch"], one["as_of"]) == ("second", "2025-11-28T10:15:00.000Z")
    assert said.run("pending", "list", "--completion", "c-0") == 0
    assert len(said.out.splitlines()) == count + 2
    assert said.run("pending", "withdraw", "--change-id", f"id-{count - 1}", "--yes") == 0
    assert said.out == "1 withdrawn\n"
    assert said.run("pending", "withdraw", "--completion", "c-0", "--batch", "second", "--yes") == 0
    assert said.out == f"{count - 1} withdrawn\n"
    assert len(said.json("pending", "list", "--completion", "c-0")) == 1
    assert said.run("pending", "withdraw", "--completion", "nobody", "--yes") == 0
    assert said.out == "0 withdrawn\n"
    # What was withdrawn may come again.
    assert said.json("enqueue", "more.jsonl")["added"] == count


def test_a_withdrawal_needs_a_selection(said: Said) -> None:
    _enqueue(said, 3)
    assert said.run("pending", "withdraw", "--yes") == 2
    assert "name changes, by --completion, --change-id or --batch" in said.err
    assert len(said.json("pending", "list")) == 3


async def test_what_is_in_flight_is_told_and_what_comes_back_is_caught(command: Command) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await queue.put([change(f"c-{number}") for number in range(5)], batch="wrong")
        held = await claim(queue, 2)
        done = command.run("batch", "withdraw", "wrong", "--yes")
        assert (done.returncode, done.stdout) == (
            75,
            "3 withdrawn, 2 in flight: a worker finishes them; run the same command again for those that fail\n",
        )
        await queue.settle([finished(held[0]), *[died(each) for each in held[1:]]])
        again = json.loads(command.run("batch", "withdraw", "wrong", "--yes", "--json").stdout)
        assert (again["withdrawn"], again["in_flight"], again["exit_code"]) == (0, 0, 0)
        [batch] = await queue.batches("wrong")
        assert (batch.applied, batch.dead, batch.withdrawn, batch.pending) == (1, 1, 3, 0)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_what_comes_back_while_it_looks_again_is_withdrawn(
    said: Said, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _enqueue(said, count, "--batch", "wrong")
    held: list[Claim] = []

    async def holding(url: str, *, timeout_seconds: float, create: bool) -> AsyncIterator[Store]:
        async with open_queue(url, timeout_seconds=timeout_seconds, create=create) as queue:
            held.extend(await claim(queue))
            yield queue

    async def come_back(stop: object, seconds: float) -> bool:
        assert stop is not None
        assert seconds
        async with open_queue(URL) as queue:
            await queue.settle([Settlement(held.pop(), delay_seconds=60.0)])
        return False

    monkeypatch.setattr(withdrawing, "_PAUSES_SECONDS", (0.001,) * count)
    monkeypatch.setattr(withdrawing, "_stopped", come_back)
    monkeypatch.setattr(withdrawing, "open_queue", asynccontextmanager(holding))
    told = said.json("batch", "withdraw", "wrong", "--yes")
    assert (told["withdrawn"], told["in_flight"], told["exit_code"], held) == (count, 0, 0, [])


@pytest.mark.parametrize("verb", ["show", "wait", "withdraw"])
def test_a_batch_that_is_not_there_is_said_with_those_that_may_be_meant(said: Said, verb: str) -> None:
    _enqueue(said, 1, "--batch", "labels-2026-11-28T10:15-3f9a")
    words = ("--yes",) if verb == "withdraw" else ()
    assert said.run("batch", verb, "labels", *words) == 3
    assert said.out == ""
    assert said.err == "metasync: there is no batch labels; did you mean labels-2026-11-28T10:15-3f9a?\n"
    assert said.run("batch", verb, "zzz", *words) == 3
    assert said.err == "metasync: there is no batch zzz; `metasync batch list` shows them\n"
    assert said.run("batch", verb, f"x{EVIL}\udcff", *words) == 3
    assert not set(said.err) & {"\x1b", "\x07", "\u202e"}
    assert len(said.err.splitlines()) == 1
    if verb != "show":
        assert said.json("batch", verb, "zzz", *words, code=3)["exit_code"] == 3
    for action in ("list", "withdraw"):
        assert said.run("pending", action, "--batch", "label-2026", *(words if action == "withdraw" else ())) == 3
        assert "did you mean labels-2026" in said.err


def test_the_likeliest_names_come_first() -> None:
    names = [f"labels-{number}" for number in range(9)] + ["grades", "label"]
    assert nearest("labels", names) == ["labels-0", "labels-1", "labels-2"]
    assert nearest("grade", names) == ["grades"]
    assert nearest("lable", names)[0] == "label"
    assert nearest("", []) == nearest("zzz", names) == []


@pytest.mark.parametrize(
    "words", [("batch", "list"), ("batch", "show", "x"), ("pending", "list"), ("batch", "wait", "x")]
)
def test_looking_makes_no_queue(said: Said, words: tuple[str, ...]) -> None:
    assert said.run(*words) == 2
    assert not Path("metasync.db").exists()


@pytest.mark.parametrize("as_of", ["soon", "2026-11-28T10:15", "1764324900000", "0", ""])
def test_an_invalid_time_is_refused_by_its_flag(said: Said, as_of: str) -> None:
    assert said.run("enqueue", _file(1), f"--as-of={as_of}") == 2
    assert "argument --as-of: " in said.err
    assert "such as 1764324900" in said.err or "2026-11-28T10:15Z" in said.err
    assert said.err.endswith("; or mtime, for each file's own\n")


@pytest.mark.parametrize("kept_share", [0.25, 0.0])  # of files that are read twice, those that are held open
def test_a_files_own_time_is_given_to_those_that_have_none(
    said: Said, kept_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_KEPT_SHARE", kept_share)
    lines = [{"completion_id": "c-0", "metadata": {"g": "A"}}, {"completion_id": "c-1", "metadata": {"g": "A"}}]
    lines[1]["as_of"] = "2026-01-01T00:00Z"
    file = write_changes(Path("labels.jsonl"), lines)
    os.utime(file, (1764324900.0, 1764324900.0))
    for words in ((), ("--strict",)):  # which reads twice
        assert said.run("enqueue", file, "--as-of", "mtime", "--batch", "x", *words) == 0, said.err
        pending = said.json("pending", "list")
        told = {each["completion_id"]: each["as_of"] for each in pending}
        assert told == {"c-0": "2025-11-28T10:15:00.000Z", "c-1": "2026-01-01T00:00:00.000Z"}
        assert said.run("batch", "withdraw", "x", "--yes") == 0


def test_what_is_no_regular_file_has_no_time_of_its_own(command: Command) -> None:
    done = command.run("enqueue", "-", "--as-of", "mtime", stdin=b"")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "<stdin>: only a regular file tells when it was last changed: say --as-of and the time\n"
    )
    os.mkfifo(command.folder / "pipe.jsonl")
    done = command.run("enqueue", "pipe.jsonl", "--as-of", "mtime")  # a pipe without a writer
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "pipe.jsonl")


@pytest.mark.parametrize("action", ["list", "show", "retry", "purge"])
async def test_letters_of_a_batch_that_is_not_there_are_not_just_none(command: Command, action: str) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await _letters(queue, 1, "spring")
        done = command.run("dead", action, "--batch", "sprnig")
        assert (done.returncode, done.stderr) == (3, "metasync: there is no batch sprnig; did you mean spring?\n")
        if action in ("list", "show"):
            assert json.loads(command.run("dead", action, "--batch", "sprnig", "--json").stdout) == []
        while await queue.forget(-1.0, most=10):
            pass
        assert await queue.batches() == []
        assert command.run("dead", action, "--batch", "spring").returncode == 0  # its letters keep its name


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize("first", [None, "first"])
def test_what_is_pending_elsewhere_is_not_awaited_and_not_said_to_be_done(
    command: Command, first: str | None, count: int
) -> None:
    lines = [{"completion_id": f"c-{i}", "metadata": {"g": "A"}, "change_id": f"line-{i}"} for i in range(count)]
    file = write_changes(command.folder / "labels.jsonl", lines)

    async def apply_one_of_its_own() -> None:
        async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
            await queue.put(lines[1:], batch=first)
            await queue.put(lines[:1], batch="second")
            [own] = [each for each in await claim(queue) if each.completion_id == "c-0"]
            await queue.settle([finished(own)], remember=True)

    asyncio.run(apply_one_of_its_own())
    waiting = ("enqueue", file, "--batch", "second", "--wait", "--timeout", "60s")
    done = command.run(*waiting)
    told = json.loads(command.run(*waiting, "--json").stdout)

    elsewhere = count - 1
    where = f"{elsewhere} in batch first" if first else f"{elsewhere} in no batch"
    again = "run the same command again to see whether they are done"
    said = f"not awaited: {elsewhere} were pending already, {where}; {again}"
    assert (said in done.stderr, done.stdout.endswith(f"done\n{said}\n")) == (elsewhere > 0, elsewhere > 0)
    assert done.returncode == told["exit_code"] == (75 if elsewhere else 0)
    assert told["enqueued"]["pending_elsewhere"] == elsewhere
    assert told["enqueued"]["pending_in"] == ({"first": elsewhere} if first and elsewhere else {})
    assert told["enqueued"]["applied_before"] == 1


@pytest.mark.parametrize("count", [1, 3, 50])
def test_what_was_stored_is_said_though_the_store_goes_away_before_it_can_be_waited_for(
    said: Said, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def going_away(url: str, *, timeout_seconds: float) -> AsyncIterator[Store]:
        async with open_queue(url, timeout_seconds=timeout_seconds) as queue:
            wrapped = WrappedQueue(queue)
            wrapped.unavailable = {"batches", "read_notes"}
            yield wrapped

    monkeypatch.setattr(enqueue, "open_queue", asynccontextmanager(going_away))
    told = said.json("enqueue", _file(count), "--batch", "spring", "--wait", "--timeout", "0", code=75)
    assert (told["enqueued"]["added"], told["enqueued"]["batch"]) == (count, "spring")
    assert (told["waited"]["ending"], told["waited"]["batch"], told["exit_code"]) == ("store_away", None, 75)
    assert said.run("enqueue", "labels.jsonl", "--batch", "spring", "--wait", "--timeout", "0") == 75
    assert said.out.startswith(f"{count} added, 0 ")
    assert said.out.endswith("`metasync batch wait spring` continues\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("enqueue", "x.jsonl", "--timeout", "1s"), "--timeout"),
        (("enqueue", "x.jsonl", "--wait", "--check"), "--wait"),
        (("batch", "wait", "x", "--timeout", "soon"), "--timeout"),
        (("batch", "wait"), "NAME"),
    ],
)
def test_flags_that_do_not_go_together_are_named(said: Said, words: tuple[str, ...], named: str) -> None:
    assert said.run(*words) == 2
    assert named in said.err


def _at_a_terminal(command: Command, typed: str, *words: str) -> tuple[int, str]:
    """Run with a terminal as standard input, and type."""
    ours, theirs = pty.openpty()
    with command.start(*words, stdin=theirs, stderr=subprocess.STDOUT) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        assert process.stdout is not None
        shown = process.stdout.read().decode()
    os.close(ours)
    return process.returncode, shown


@pytest.mark.parametrize("words", [("batch", "withdraw", "wrong"), ("pending", "withdraw", "--batch", "wrong")])
@pytest.mark.parametrize("count", [1, 1_200])
def test_a_person_confirms_by_the_count(command: Command, words: tuple[str, ...], count: int) -> None:
    lines = [{"completion_id": f"c-{number}", "metadata": {"g": "A"}} for number in range(count)]
    assert command.run("enqueue", write_changes(command.folder / "a.jsonl", lines), "--batch", "wrong").returncode == 0
    for typed in ("\n", "y\n", f"{count + 1}\n", "\x04"):
        code, shown = _at_a_terminal(command, typed, *words)
        assert code == 2
        assert f"{count:,} pending changes would be withdrawn\n" in shown
        assert "that is not the count: nothing was done" in shown
    code, shown = _at_a_terminal(command, f"{count:,}\n", *words)
    assert (code, shown.splitlines()[-1]) == (0, f"{count:,} withdrawn")


def test_a_signal_at_the_question_ends_it_and_nothing_is_done(command: Command) -> None:
    file = write_changes(command.folder / "a.jsonl", [{"completion_id": "c", "metadata": {"g": "A"}}])
    assert command.run("enqueue", file, "--batch", "wrong").returncode == 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        ours, theirs = pty.openpty()
        with command.start("batch", "withdraw", "wrong", stdin=theirs) as process:
            assert process.stderr is not None
            assert b"would be withdrawn" in process.stderr.readline()
            assert b"type 1 to continue" in process.stderr.readline()
            process.send_signal(number)
            assert process.wait(60) == code
        os.close(ours)
        os.close(theirs)
    assert len(json.loads(command.run("pending", "list", "--json").stdout)) == 1


class _Signalled(WrappedQueue):
    """A queue whose withdrawals, and whatever is done to letters, get a signal after the first piece."""

    is_told = False

    def _after(self, terms: dict[str, Any]) -> dict[str, Any]:
        def go_on(so_far: Any) -> bool:
            if not self.is_told:  # a second one would end the process
                self.is_told = True
                signals.tell(signal.SIGINT)
            goes_on: bool = terms["go_on"](so_far)
            return goes_on

        return {"go_on": go_on}

    async def withdraw(self, selection: PendingSelection, **terms: Any) -> Withdrawn:
        return await super().withdraw(selection, **self._after(terms))

    async def retry_dead(self, selection: DeadSelection, **terms: Any) -> Revived:
        return await super().retry_dead(selection, **self._after(terms))

    async def purge_dead(self, selection: DeadSelection, **terms: Any) -> int:
        return await super().purge_dead(selection, **self._after(terms))

    @classmethod
    def opening(cls, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        """Have a verb open such queues."""

        @asynccontextmanager
        async def opened(url: str, *, timeout_seconds: float, create: bool) -> AsyncIterator[Store]:
            async with open_queue(url, timeout_seconds=timeout_seconds, create=create) as queue:
                yield cls(queue)

        monkeypatch.setattr(module, "open_queue", opened)


@pytest.mark.parametrize("words", [("batch", "withdraw", "wrong"), ("pending", "withdraw", "--batch", "wrong")])
def test_a_signal_ends_a_withdrawal_between_pieces_and_the_same_command_goes_on(
    said: Said, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    count = 30_000
    _enqueue(said, count, "--batch", "wrong")
    with monkeypatch.context() as patched:
        _Signalled.opening(patched, withdrawing)
        assert said.run(*words, "--yes") == 75
        first = int(said.out.split()[0].replace(",", ""))
        assert said.out == f"{first:,} withdrawn; interrupted: run the same command again to continue\n"
        assert 0 < first < count
        [batch] = said.json("batch", "list")
        assert (batch["withdrawn"], batch["pending"]) == (first, count - first)
        told = said.json(*words, "--yes", code=75)
        assert 0 < told["withdrawn"] < count - first
        assert (told["error"], told["exit_code"]) == ("interrupted: run the same command again to continue", 75)
    rest = count - first - told["withdrawn"]
    assert said.json(*words, "--yes")["withdrawn"] == rest
    assert said.json("batch", "list")[0]["withdrawn"] == count


def test_a_signal_ends_what_is_done_to_letters_between_pieces_and_its_count_is_said(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, piece = 2_500, 1_000

    async def bury() -> None:
        async with open_queue(URL) as queue:
            await queue.put([change(f"c-{number}") for number in range(count)])
            while claims := await claim(queue, 5_000):
                await queue.settle([died(each) for each in claims])

    asyncio.run(bury())
    with monkeypatch.context() as patched:
        _Signalled.opening(patched, dead)
        assert said.json("dead", "retry", "--all", code=75)["retried"] == piece
        assert said.err == "interrupted: run the same command again to continue\n"
        assert said.run("dead", "purge", "--all") == 75
        assert said.out == f"{piece} purged\n"
    status = said.json("status")
    assert (status["pending"], status["dead"]) == (piece, count - 2 * piece)
    assert said.json("dead", "purge", "--all") == {"purged": count - 2 * piece}


def test_what_asks_for_a_batch_that_is_not_there_answers_in_json_all_the_same(said: Said) -> None:
    _enqueue(said, 1, "--batch", "spring")
    absent = "there is no such batch"
    for words in (("batch", "show"), ("batch", "wait"), ("batch", "withdraw")):
        told = said.json(*words, "sprnig", code=3)
        assert (told["error"], told["exit_code"]) == (absent, 3)
        assert said.err == "metasync: there is no batch sprnig; did you mean spring?\n"
    told = said.json("pending", "withdraw", "--batch", "sprnig", code=3)
    assert (told["error"], told["exit_code"]) == (absent, 3)
    assert said.json("pending", "list", "--batch", "sprnig", code=3) == []
    for action in ("list", "show"):
        assert said.json("dead", action, "--batch", "sprnig", code=3) == []
    assert said.json("dead", "retry", "--batch", "sprnig", code=3)["retried"] == 0
    assert said.json("dead", "purge", "--batch", "sprnig", code=3) == {"purged": 0}


@pytest.mark.parametrize("words", [("batch", "show"), ("batch", "wait"), ("batch", "withdraw")])
def test_what_asks_for_a_batch_answers_in_json_where_there_is_no_queue(said: Said, words: tuple[str, ...]) -> None:
    told = said.json(*words, "spring", code=2)
    assert (told["exit_code"], told["error"].startswith("metasync: ")) == (2, True)


def test_an_interrupted_withdrawal_says_that_more_may_be_withdrawn(
    said: Said, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(WrappedQueue):
        async def withdraw(self, selection: PendingSelection, **terms: Any) -> Withdrawn:
            done = await super().withdraw(selection, **terms)
            signals.tell(signal.SIGINT)
            signals.tell(signal.SIGINT)  # before the count has come back
            return done

    async def opened(url: str, *, timeout_seconds: float, create: bool) -> AsyncIterator[Store]:
        async with open_queue(url, timeout_seconds=timeout_seconds, create=create) as queue:
            yield Interrupted(queue)

    def leave() -> None:
        raise signals.Stopped(signal.SIGINT)

    _enqueue(said, 3, "--batch", "wrong")
    monkeypatch.setattr(withdrawing, "open_queue", asynccontextmanager(opened))
    monkeypatch.setattr(signals, "leave", leave)
    with pytest.raises(signals.Stopped):
        run(["batch", "withdraw", "wrong", "--yes"])
    asyncio.set_event_loop(None)
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()  # the command leaves its event loop to the end of the process
    sink.flush()
    assert capfd.readouterr().err.startswith("interrupted twice: at least 0 withdrawn; ")


def test_without_a_terminal_nothing_is_confirmed(command: Command) -> None:
    file = write_changes(command.folder / "a.jsonl", [{"completion_id": "c", "metadata": {"g": "A"}}])
    assert command.run("enqueue", file, "--batch", "wrong").returncode == 0
    done = command.run("batch", "withdraw", "wrong", stdin=b"1\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "use --yes" in done.stderr
    told = json.loads(command.run("batch", "withdraw", "wrong", "--json").stdout)
    assert (told["withdrawn"], told["error"], told["exit_code"]) == (0, "not confirmed", 2)


def test_more_than_was_confirmed_is_not_withdrawn(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    _enqueue(said, 3, "--batch", "wrong")

    def more_come_meanwhile(count: int, _what: str) -> bool:
        assert count == 3
        assert run(["enqueue", "labels.jsonl", "--batch", "wrong"]) == 0
        return True

    monkeypatch.setattr(withdrawing, "confirmed", more_come_meanwhile)
    assert said.run("batch", "withdraw", "wrong") == 75
    assert "nothing was done: 3 were shown, but there are 6 now; look again" in said.out
    assert (grown(2, 3), grown(3, 3)) == (None, None)


async def test_names_and_ids_that_came_by_other_clients_move_no_cursor(command: Command) -> None:
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        await queue.put([change("c-1", change_id=EVIL), change("c-2")], batch="spring")
        await queue.settle([died(await claim_one_of(queue))])
    with sqlite3.connect(command.folder / "metasync.db") as connection:
        connection.execute("UPDATE batch SET name = ?", (EVIL,))
    connection.close()
    settings = cycle([{}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}])
    for code, words in (
        (0, ("batch", "list")),
        (0, ("batch", "list", "--json")),
        (0, ("batch", "show", EVIL)),
        (75, ("batch", "wait", EVIL, "--timeout", "0")),
        (3, ("batch", "show", "b")),
        (0, ("pending", "list")),
        (0, ("pending", "list", "--json")),
        (2, ("batch", "withdraw", EVIL)),
    ):
        done = Command(command.folder, next(settings)).run(*words)
        assert done.returncode == code, (words, done.stderr)
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07", "\u202e"}


def test_a_closed_pipe_ends_a_listing_quietly(command: Command) -> None:
    file = write_changes(
        command.folder / "a.jsonl", [{"completion_id": f"c-{n}", "metadata": {}} for n in range(3_000)]
    )
    assert command.run("enqueue", file, "--batch", "spring").returncode == 0
    for words in ("pending list", "pending list --json", "batch list", "batch show spring"):
        script = f'{METASYNC} {words} | head -n 1 >seen; echo "${{PIPESTATUS[0]}}"'
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            cwd=command.folder,
            env=command.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("0\n", "")
        assert (command.folder / "seen").read_text()


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_an_urgent_file_comes_before_what_waits_with_what_waits_for_the_same(
    command: Command, count: int
) -> None:
    lines = [{"completion_id": f"c-{number}", "metadata": {"label": "x"}} for number in range(count)]
    file = write_changes(command.folder / "labels.jsonl", lines)
    assert command.run("enqueue", file).returncode == 0
    last = write_changes(command.folder / "last.jsonl", lines[-1:])
    assert command.run("enqueue", last, "--urgent").returncode == 0
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        claimed = await queue.claim(100, lease_seconds=60.0, owner="w", place="urgent")
        assert [(each.completion_id, len(each.changes)) for each in claimed] == [(f"c-{count - 1}", 2)]
        assert len(await claim(queue)) == count - 1


@pytest.mark.parametrize("count", [1, 3, 50])
def test_what_apply_applies_is_a_batch_too(command: Command, count: int) -> None:
    with running_simulator("--completions", "60") as simulator:
        working = replace(command, settings={"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url})
        lines = [{"completion_id": f"chatcmpl-{n:06}", "metadata": {"g": "A"}} for n in range(1, count + 1)]
        file = write_changes(command.folder / "labels.jsonl", lines)
        as_of = ("--as-of", "2026-01-02T00:00Z")
        told = json.loads(working.run("apply", file, "--urgent", *as_of, "--json").stdout)
        assert MADE.fullmatch(told["enqueued"]["batch"])
        shown = working.run("apply", file, "--batch", "again")
        assert re.search(r"^batch +again$", shown.stdout, re.MULTILINE)
        older = json.loads(
            working.run("apply", file, "--batch", "old", "--as-of", "2026-01-01T00:00Z", "--json").stdout
        )
        assert (older["superseded"], older["exit_code"]) == (count, 0)
        listed = json.loads(working.run("batch", "list", "--json").stdout)
    ends = [(each["name"], each["applied"], each["unchanged"], each["superseded"]) for each in listed]
    assert ends == [("old", 0, 0, count), ("again", 0, count, 0), (told["enqueued"]["batch"], count, 0, 0)]
