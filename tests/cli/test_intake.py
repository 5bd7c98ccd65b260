"""Files, pipes and flags as users have them: what is stored, the messages, and the exit code."""

import gzip
import io
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from worker.cli.main import main

Stored = tuple[str, Mapping[str, str | None], str, str | None]

GOOD = b'{"completion_id": "c1", "metadata": {"grade": "A"}}\n'
ROW = ("c1", {"grade": "A"}, "merge", None)
PRETTY = b"".join(json.dumps({"completion_id": f"c{n}", "metadata": {"grade": "A"}}, indent=2).encode() for n in (1, 2))
ARRAY = json.dumps([{"completion_id": f"c{n}", "metadata": {"grade": "A"}} for n in (1, 2)])
ROWS = (ROW, ("c2", {"grade": "A"}, "merge", None))
NUMBERS = b'{"completion_id": "c1", "metadata": {"n": 1.50, "b": true}}\n'
JOINED = "completion_id,grade\nc1,A\ncompletion_id,grade\nc2,A\n"
SECOND = b'{"completion_id": "c2", "metadata": {"grade": "A"}, "change_id": "i1"}\n'
FIRST = SECOND.replace(b"c2", b"c1")


@dataclass(frozen=True)
class Case:
    """What comes of a file or standard input.

    Args:
        name: of the file; `-` for standard input.
        rows: completion, metadata, mode and change_id of what is stored.
        said: on standard error, each of these; no line of it comes twice.
        counts: what `--json` says.
    """

    name: str
    content: bytes
    flags: Sequence[str] = ()
    rows: Sequence[Stored] = ()
    said: Sequence[str] = ()
    code: int = 0
    counts: dict[str, int] = field(default_factory=dict)


CASES = {
    "JSON lines": Case("a.jsonl", GOOD, rows=[ROW]),
    "JSON lines on standard input": Case("-", GOOD, rows=[ROW]),
    "a JSON array": Case("a.json", ARRAY.encode(), rows=ROWS),
    "a JSON array on standard input": Case("-", ARRAY.encode(), rows=ROWS),
    "a JSON array under another name": Case("a.jsonl", ARRAY.encode(), rows=ROWS),
    "a compressed JSON array": Case("a.json.gz", gzip.compress(ARRAY.encode()), rows=ROWS),
    "pretty-printed objects": Case("a.json", PRETTY, rows=ROWS),
    "pretty-printed objects on standard input": Case("-", PRETTY, rows=ROWS),
    "a pretty-printed array": Case("a.json", json.dumps(json.loads(ARRAY), indent=4).encode(), rows=ROWS),
    "JSON lines named .json": Case("a.json", GOOD + GOOD.replace(b"c1", b"c2"), rows=ROWS),
    "an array that was cut off": Case(
        "a.json",
        ARRAY.encode()[:-1],
        rows=ROWS,
        said=["a.json:1: record 3: the array that starts in line 1 has no end: the file was cut off"],
        code=3,
        counts={"refused": 1},
    ),
    "an empty array": Case("a.json", b"[]", said=["a.json: the file holds no change"]),
    "an empty file": Case("a.jsonl", b"", said=["a.jsonl: the file holds no change"]),
    "a header alone": Case("a.csv", b"completion_id,grade\n", said=["a.csv: the file holds no change"]),
    "nothing on standard input": Case("-", b"", said=["<stdin>: the file holds no change"]),
    "an empty file that must not be": Case(
        "a.jsonl", b"", ["--fail-on-empty"], said=["a.jsonl: the file holds no change", "nothing was stored"], code=2
    ),
    "an empty file that must not be, strictly": Case(
        "a.csv", b"completion_id,grade\n", ["--fail-on-empty", "--strict"], said=["nothing was stored"], code=2
    ),
    "CSV": Case("a.csv", b"completion_id,grade\nc1,A\n", rows=[ROW]),
    "CSV on standard input": Case("-", b"completion_id,grade\nc1,A\n", ["--format", "csv"], rows=[ROW]),
    "CSV on standard input, unsaid": Case("-", b"completion_id,grade\nc1,A\n", said=["say --format csv"], code=2),
    "CSV named .jsonl": Case("a.jsonl", b"completion_id,grade\nc1,A\n", said=["say --format csv"], code=2),
    "JSON named .csv": Case("a.csv", GOOD, said=["say --format jsonl"], code=2),
    "tabs": Case("a.tsv", b"completion_id\tgrade\nc1\tA\n", rows=[ROW]),
    "tabs named .csv": Case("a.csv", b"completion_id\tgrade\nc1\tA\n", said=["tab: say --delimiter tab"], code=2),
    "tabs, said": Case("a.csv", b"completion_id\tgrade\nc1\tA\n", ["--delimiter", "tab"], rows=[ROW]),
    "semicolons": Case("a.csv", b"completion_id;grade\nc1;A\n", said=["';': say --delimiter ';'"], code=2),
    "semicolons, said": Case("a.csv", b"completion_id;grade\nc1;A\n", ["--delimiter", ";"], rows=[ROW]),
    "Excel's sep=": Case("a.csv", b"sep=;\r\ncompletion_id;grade\r\nc1;A\r\n", said=["say --delimiter ';'"], code=2),
    "Excel's sep=, said": Case("a.csv", b"sep=;\r\ncompletion_id;grade\r\nc1;A\r\n", ["--delimiter", ";"], rows=[ROW]),
    "Excel's byte order mark": Case("a.csv", b"\xef\xbb\xbfcompletion_id,grade\r\nc1,A\r\n", rows=[ROW]),
    "UTF-16": Case("a.csv", "completion_id,grade\nc1,A\n".encode("utf-16"), said=["UTF-16", "iconv"], code=2),
    "UTF-16 without a mark": Case("-", GOOD.decode().encode("utf-16-be"), said=["UTF-16"], code=2),
    "an Excel workbook": Case("a.xlsx", b"PK\x03\x04\x14\0\6\0", said=["Excel workbook", "save it as CSV"], code=2),
    "an Excel workbook named .csv": Case("a.csv", b"PK\x03\x04\x14\0\6\0", said=["Excel workbook"], code=2),
    "an old Excel workbook": Case("-", b"\xd0\xcf\x11\xe0\xa1\xb1", said=["Excel workbook"], code=2),
    "carriage returns alone": Case("a.csv", b"completion_id,grade\rc1,A\r", said=["carriage returns alone"], code=2),
    "carriage returns alone, of JSON": Case("-", GOOD.replace(b"\n", b"\r") * 2, said=["carriage returns"], code=2),
    "a byte order mark in the middle": Case(
        "a.jsonl", GOOD + b"\xef\xbb\xbf" + GOOD, rows=[ROW], said=["a.jsonl:2: the line starts with a byte"], code=3
    ),
    "a .txt": Case("a.txt", GOOD, said=["a.txt: unknown suffix", "say --format jsonl or json or csv"], code=2),
    "a .txt, said": Case("a.txt", GOOD, ["--format", "jsonl"], rows=[ROW]),
    "joined CSV": Case(
        "a.csv", JOINED.encode(), rows=ROWS, said=["a.csv:3: the header row again"], code=3, counts={"refused": 1}
    ),
    "ids that pandas left out": Case(
        "a.csv",
        b"completion_id,grade\nnan,A\nNULL,B\nNone,C\nundefined,D\nc1,A\n",
        rows=[ROW],
        said=[f"a.csv:{line}: completion_id" for line in (2, 3, 4, 5)],
        code=3,
        counts={"refused": 4},
    ),
    "an id of JSON that is no id": Case(
        "-", GOOD.replace(b"c1", b"null"), said=["<stdin>:1: completion_id 'null' stands for no value"], code=3
    ),
    "a space in the header": Case(
        "a.csv", b"completion_id, grade\nc1, A\n", said=["white space around it", "'metadata. grade'"], code=2
    ),
    "a nearly-column": Case("a.csv", b"completion_id,Mode\nc1,replace\n", said=["'metadata.Mode'"], code=2),
    "a key like a column": Case(
        "a.csv", b"completion_id,metadata.Mode\nc1,x\n", rows=[("c1", {"Mode": "x"}, "merge", None)]
    ),
    "an index of pandas": Case("a.csv", b"Unnamed: 0,completion_id,grade\n0,c1,A\n", said=["index=False"], code=2),
    "an id by another name": Case("a.csv", b"id,grade\nc1,A\n", said=["--id-column 'id'"], code=2),
    "an id by another name, said": Case("a.csv", b"id,grade\nc1,A\n", ["--id-column", "id"], rows=[ROW]),
    "an id as Excel has it": Case(
        "a.csv", b"Completion ID,grade\nc1,A\n", said=["--id-column 'Completion ID'"], code=2
    ),
    "an id by another name in JSON": Case(
        "a.jsonl",
        GOOD.replace(b"completion_id", b"completionId") * 5,
        said=["unknown field 'completionId'", "--id-column completionId"],
        code=3,
        counts={"refused": 5},
    ),
    "an id by another name in JSON, said": Case(
        "a.jsonl", GOOD.replace(b"completion_id", b"id"), ["--id-column", "id"], rows=[ROW]
    ),
    "metadata as text": Case(
        "a.jsonl",
        json.dumps({"completion_id": "c1", "metadata": '{"grade": "A"}'}).encode(),
        said=["a.jsonl:1: metadata is JSON text within a string: write the object itself"],
        code=3,
    ),
    "numbers": Case(
        "a.jsonl", NUMBERS * 9, said=["must be a string, not a number", "--coerce"], code=3, counts={"refused": 9}
    ),
    "numbers, coerced": Case(
        "a.jsonl", NUMBERS, ["--coerce"], rows=[("c1", {"n": "1.50", "b": "true"}, "merge", None)]
    ),
    "blank cells": Case(
        "a.csv",
        b"completion_id,grade\nc1,A\nc2,\n,\n",
        rows=[ROW],
        counts={"added": 1, "blank": 2, "refused": 0},
    ),
    "blank cells in mode replace": Case(
        "a.csv", b"completion_id,grade\nc1,\n", ["--mode", "replace"], said=["erase", "--empty remove"], code=3
    ),
    "blank cells that erase": Case(
        "a.csv",
        b"completion_id,grade\nc1,\n",
        ["--mode", "replace", "--empty", "remove"],
        rows=[("c1", {}, "replace", None)],
    ),
    "blank cells that remove": Case(
        "a.csv", b"completion_id,grade\nc1,\n", ["--empty", "remove"], rows=[("c1", {"grade": None}, "merge", None)]
    ),
    "a change_id again": Case(
        "a.jsonl", FIRST * 2, rows=[("c1", {"grade": "A"}, "merge", "i1")], counts={"duplicates": 1}
    ),
    "a change_id again with another content": Case(
        "a.jsonl",
        FIRST + SECOND,
        rows=[("c1", {"grade": "A"}, "merge", "i1")],
        said=["a.jsonl:2: change_id 'i1' is pending with other content: give this change another id"],
        code=3,
        counts={"added": 1, "duplicates": 0, "refused": 1},
    ),
    "resuming": Case("a.jsonl", GOOD.replace(b"c1", b"c0") + GOOD, ["--resume-from", "1"], rows=[ROW]),
    "resuming by name": Case("a.csv", b"completion_id,grade\nc0,B\nc1,A\n", ["--resume-from", "a.csv:2"], rows=[ROW]),
    "resuming standard input": Case("-", GOOD + GOOD, ["--resume-from", "<stdin>:1"], rows=[ROW]),
    "resuming after the last line": Case("a.jsonl", GOOD, ["--resume-from", "1"]),
    "resuming beyond the last line": Case(
        "a.jsonl", GOOD, ["--resume-from", "99"], said=["a.jsonl: --resume-from 99: the last line is 1"], code=2
    ),
    "resuming what is not there": Case("a.csv", b"", ["--resume-from", "b.csv:2"], said=["b.csv is not among"], code=2),
    "a bad line": Case("a.jsonl", GOOD + b"x\n", rows=[ROW], said=["a.jsonl:2: not JSON"], code=3),
    "a bad line, strictly": Case("a.jsonl", GOOD + b"x\n", ["--strict"], said=["stored: 1 line refused"], code=2),
    "a bad line on standard input, strictly": Case(
        "-", GOOD + b"x\n", ["--strict"], said=["<stdin>:2: not JSON"], code=2
    ),
    "good lines, strictly": Case("a.jsonl", GOOD, ["--strict"], rows=[ROW]),
    "good lines on standard input, strictly": Case("-", GOOD, ["--strict"], rows=[ROW]),
    "standard input twice": Case("-", GOOD, ["-"], said=["standard input is named twice"], code=2),
    "rejects to nowhere": Case("a.jsonl", GOOD, ["--rejects", "-"], said=["/dev/stdout"], code=2),
    "a file that is not there": Case("a.jsonl", GOOD, ["b.jsonl"], said=["b.jsonl: there is no such file"], code=2),
}


def stored(folder: Path) -> list[Stored]:
    """What lies in the queue, in its order."""
    path = folder / "metasync.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as queue:
        found = queue.execute(
            "SELECT completion_id, metadata, mode, change_id "
            "FROM change JOIN target ON target = target.number ORDER BY id"
        ).fetchall()
    return [
        (completion_id, json.loads(metadata), mode, change_id) for completion_id, metadata, mode, change_id in found
    ]


def enqueue(monkeypatch: pytest.MonkeyPatch, folder: Path, case: Case, *flags: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(case.content)))
    if case.name != "-":
        (folder / case.name).write_bytes(case.content)
    return main(["enqueue", case.name, *case.flags, *flags])


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("METASYNC_")]:
        monkeypatch.delenv(name)  # what the suite itself is told would be no setting


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_input_is_stored_correctly_or_refused_by_name(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = enqueue(monkeypatch, tmp_path, case, "--json")

    out, err = capsys.readouterr()
    assert (code, stored(tmp_path)) == (case.code, list(case.rows)), err
    for text in case.said:
        assert text in err
    for line in err.splitlines():
        assert err.splitlines().count(line) == 1
    assert len(err.splitlines()) <= max(len(case.said) + 3, 5)
    shown = json.loads(out)
    assert shown["exit_code"] == code
    assert {name: shown[name] for name in case.counts} == case.counts
    assert (shown["error"] is not None) == (code == 2)
    assert (len(shown["refusals"]) > 0) == (shown["refused"] > 0)


def test_resuming_says_how_many_files_it_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b-new.jsonl", "c.jsonl"):
        Path(name).write_bytes(GOOD)

    assert main(["enqueue", *sorted(map(str, Path().glob("*.jsonl"))), "--resume-from", "c.jsonl:0"]) == 0

    assert "--resume-from: 2 files before c.jsonl not read" in capsys.readouterr().err
    assert stored(tmp_path) == [ROW]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_checking_ends_as_enqueueing_would_and_needs_no_queue(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = enqueue(monkeypatch, tmp_path, case, "--check", "--json", "--queue-url", "sqlite:////nowhere/at/all.db")

    shown = json.loads(capsys.readouterr().out)
    assert code == case.code
    assert {name: shown[name] for name in case.counts} == case.counts
    assert shown["added"] == len(case.rows)
    assert shown["checked"]["completions"] == len({row[0] for row in case.rows})
    assert {path.name for path in tmp_path.iterdir()} <= {case.name}
