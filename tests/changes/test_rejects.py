"""Refused lines, written to a file, repaired and read again."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.changes.reading import SECRET, read_file, refusals
from worker.changes import MetadataChange
from worker.changes.files import ChangeFile, Refusal, RejectsFile, UnreadableFile, UnwritableRejects


def write_rejects(path: Path, *sources: Path) -> list[dict[str, Any]]:
    with RejectsFile(str(path), inputs=map(str, sources)) as rejects:
        for source in sources:
            try:
                with ChangeFile.open(str(source)) as file:
                    for _, item in file:
                        if isinstance(item, Refusal):
                            rejects.write(item)
            except UnreadableFile as error:
                rejects.write(error.refusal)
    return entries_of(path)


def entries_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def put_entries(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def test_refused_lines_are_written_with_file_line_and_reason(tmp_path: Path) -> None:
    source = tmp_path / "labels.jsonl"
    source.write_bytes(b'{"completion_id":"c1","metadata":{}}\n{"completion_id":"c2","metadata":{"a":"\xc3\xbc"},}\n')

    entries = write_rejects(tmp_path / "rejects.jsonl", source)

    assert len(entries) == 1
    assert "not JSON" in entries[0].pop("reason")
    assert entries == [{"file": str(source), "line": 2, "text": '{"completion_id":"c2","metadata":{"a":"ü"},}'}]


def test_repaired_lines_go_in_as_they_are(tmp_path: Path) -> None:
    lines, rows = tmp_path / "labels.jsonl", tmp_path / "labels.csv"
    lines.write_bytes(b'{"completion_id":"oops 1","metadata":{"a":"b"},"change_id":"i1"}\n')
    rows.write_bytes(b'completion_id,grade,mode\noops 2,"two\nlines",replace\n')
    rejects = tmp_path / "rejects.jsonl"

    entries = write_rejects(rejects, lines, rows)
    put_entries(rejects, [{**entry, "text": entry["text"].replace("oops ", "c")} for entry in entries])

    assert read_file(rejects) == [
        MetadataChange("c1", {"a": "b"}, "merge", "i1"),
        MetadataChange("c2", {"grade": "two\nlines"}, "replace"),
    ]


def test_the_mode_of_a_repaired_line_is_the_one_that_is_asked_for_now(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    entry = {"file": "a", "line": 1, "reason": "x"}
    put_entries(
        rejects,
        [
            {**entry, "text": '{"completion_id":"c1","metadata":{}}'},
            {**entry, "header": "completion_id,a", "text": "c2,b"},
        ],
    )

    assert read_file(rejects, "replace") == [
        MetadataChange("c1", {}, "replace"),
        MetadataChange("c2", {"a": "b"}, "replace"),
    ]


def test_lines_that_were_not_repaired_are_refused_again_in_the_same_form(tmp_path: Path) -> None:
    lines, rows, wide = tmp_path / "labels.jsonl", tmp_path / "labels.csv", tmp_path / "wide.jsonl"
    lines.write_bytes(b"\n".join([b"not JSON", b'{"metadata":"\xff\xfe"}', b"x" * 2_000_000]))
    rows.write_bytes(b'completion_id,grade\nragged\nc1,"open\nc2,\xff\n')
    wide.write_bytes(b"\xff\xfe{\0")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    once = write_rejects(first, lines, rows, wide)
    again = write_rejects(second, first)

    assert len(once) == 7
    assert [entry["line"] for entry in again] == [1, 2, 3, 4, 5, 6, 7]
    content = ("text", "base64", "header", "cut")
    assert [[entry.get(name) for name in content] for entry in again] == [
        [entry.get(name) for name in content] for entry in once
    ]
    assert once[1]["base64"] == "eyJtZXRhZGF0YSI6Iv/+In0="
    assert once[2]["text"] == "x" * 4096
    assert once[2]["cut"] is True
    assert "the text was cut short" in again[2]["reason"]
    assert once[3]["header"] == "completion_id,grade"
    assert once[6].keys() == {"file", "line", "reason"}
    assert "about a whole file" in again[6]["reason"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"text": 5}, "text must be a string, not a number"),
        ({"text": "c1,s3cret-value", "header": ["completion_id"]}, "header must be a string, not an array"),
        ({"base64": "s3cret-value"}, "base64 is not valid; put the line into text instead"),
        ({"base64": "ü"}, "base64 is not valid"),
        ({"text": "c1,a\nc2,s3cret-value", "header": "completion_id,grade"}, "text must hold one row, not 2"),
        ({"text": "c1,s3cret-value", "header": ""}, "header must hold one row, not 0"),
        ({"text": "c1,s3cret-value", "header": "id,grade"}, "the header has no column completion_id"),
        ({"text": '{"completion_id":"\ud800"}'}, "the line is not UTF-8"),
        ({"text": '{"file":"a","line":1,"reason":"x","text":"s3cret-value"}'}, "unknown field 'file'"),
        ({"text": "{}", "more": SECRET}, "unknown field 'file'"),
    ],
)
def test_an_entry_that_was_spoilt_is_refused(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    rejects = tmp_path / "rejects.jsonl"
    put_entries(rejects, [{"file": "a.csv", "line": 7, "reason": "x", **content}])

    items = read_file(rejects)

    assert len(items) == 1
    assert refusals(items)[0][0] == 1
    assert reason in refusals(items)[0][1]
    assert SECRET not in str(items[0])


def test_every_entry_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    with RejectsFile(str(path)) as rejects:
        rejects.write(Refusal("a.jsonl", 1, "x", b"y"))

        assert entries_of(path) == [{"file": "a.jsonl", "line": 1, "reason": "x", "text": "y"}]
        assert rejects.written == 1


def test_a_file_name_that_is_not_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    name = os.fsdecode(b"caf\xe9.jsonl")

    with RejectsFile(str(path)) as rejects:
        rejects.write(Refusal(name, 1, "x", b"y"))

    assert entries_of(path)[0]["file"] == name


def test_refused_lines_never_overwrite_what_they_are_read_from(tmp_path: Path) -> None:
    path, link = tmp_path / "labels.jsonl", tmp_path / "link.jsonl"
    path.write_text("precious", encoding="utf-8")
    link.symlink_to(path)

    with pytest.raises(UnwritableRejects, match="cannot be written over the file that they are read from"):
        RejectsFile(str(link), inputs=["other.jsonl", str(path)])

    program = (
        "import sys\n"
        "from worker.changes.files import RejectsFile, UnwritableRejects\n"
        "try: RejectsFile(sys.argv[1], inputs=['-'])\n"
        "except UnwritableRejects as error: print(error)\n"
    )
    with path.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], stdin=stdin, capture_output=True, check=True, timeout=60
        )
    assert b"cannot be written over the file" in done.stdout
    assert path.read_text(encoding="utf-8") == "precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnwritableRejects, match=r"missing/r\.jsonl: refused lines cannot be written there: No such"):
        RejectsFile(str(tmp_path / "missing" / "r.jsonl"))
    with pytest.raises(UnwritableRejects, match="Is a directory"):
        RejectsFile(str(tmp_path))


def test_a_full_disk_is_named() -> None:
    rejects = RejectsFile("/dev/full")

    with pytest.raises(UnwritableRejects, match="/dev/full: refused lines cannot be written there: No space left"):
        rejects.write(Refusal("a.jsonl", 1, "x", b"y"))
    with pytest.raises(UnwritableRejects, match="No space left"):
        rejects.close()
    assert rejects.written == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_can_read_refused_lines(tmp_path: Path, umask: int) -> None:
    there = tmp_path / "there.jsonl"
    there.touch(0o644)
    before = os.umask(umask)
    try:
        for path in (there, tmp_path / "new.jsonl"):
            with RejectsFile(str(path)) as rejects:
                rejects.write(Refusal("labels.jsonl", 1, "no JSON", b"{"))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
