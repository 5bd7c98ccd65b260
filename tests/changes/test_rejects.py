"""Refused lines, written to a file, repaired and read again."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.changes.reading import SECRET, read_bytes, read_file, refusals
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


def test_a_name_that_is_none_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnwritableRejects, match=r"^a\0b: refused lines cannot be written there: embedded null "):
        RejectsFile("a\0b")
    with pytest.raises(UnwritableRejects) as caught:
        RejectsFile("-")
    assert str(caught.value) == "--rejects takes the name of a file, not -; for standard output say /dev/stdout"


@pytest.mark.parametrize("name", ["rejects.jsonl.gz", "REJECTS.GZ"])
def test_a_name_that_promises_compressed_lines_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnwritableRejects, match=rf"{name}: refused lines are not compressed, so leave \.gz out"):
        RejectsFile(str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def _refuse_nothing(path: Path, *, fails: bool = False, append: bool = False) -> None:
    with RejectsFile(str(path), append=append):
        if fails:
            raise ZeroDivisionError


def test_a_run_that_refuses_nothing_leaves_no_file_not_even_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    for before in (None, "of an older run"):
        if before:
            path.write_text(before, encoding="utf-8")
        _refuse_nothing(path)
        assert not path.exists()


def test_a_run_that_ends_early_or_appends_leaves_an_older_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    path.write_text("of an older run", encoding="utf-8")
    _refuse_nothing(path, append=True)
    with pytest.raises(ZeroDivisionError):
        _refuse_nothing(path, fails=True)
    assert path.read_text(encoding="utf-8") == "of an older run"
    with pytest.raises(ZeroDivisionError):
        _refuse_nothing(tmp_path / "new.jsonl", fails=True)
    assert not (tmp_path / "new.jsonl").exists()


def test_the_first_refused_line_replaces_the_older_ones_unless_they_are_to_stay(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    put_entries(path, [{"older": 1}, {"older": 2}])
    for append, lines in ((True, ["older", "older", "file"]), (False, ["file", "file"])):
        with RejectsFile(str(path), append=append) as rejects:
            for number in (1, 2)[append:]:
                rejects.write(Refusal("a.jsonl", number, "x", b"y"))
            assert rejects.written == len((1, 2)[append:])
        assert [next(iter(entry)) for entry in entries_of(path)] == lines


def test_what_is_no_plain_file_is_neither_emptied_nor_removed(tmp_path: Path) -> None:
    link, target = tmp_path / "link.jsonl", tmp_path / "target.jsonl"
    target.write_text("of an older run", encoding="utf-8")
    link.symlink_to(target)
    _refuse_nothing(link)
    assert link.is_symlink()
    assert target.exists()
    _refuse_nothing(Path("/dev/null"))
    assert Path("/dev/null").exists()
    with RejectsFile("/dev/null") as rejects:
        rejects.write(Refusal("a.jsonl", 1, "x", b"y"))
        assert rejects.written == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"text": "x", "cut": True}, 'the text was cut short: put the whole line in, and take "cut" out'),
        ({}, "the entry holds no line: it is about a whole file"),
        ({"text": ""}, "the entry holds no line: it is about a whole file"),
        ({"base64": None}, "the entry holds no line: it is about a whole file"),
        ({"base64": "!"}, "base64 is not valid; put the line into text instead"),
        ({"text": "c1", "header": "completion_id", "delimiter": 5}, "delimiter must be a string, not a number"),
        ({"text": "c1,1", "header": "completion_id,grade,topic"}, "the row has 2 cells where the header has 3"),
    ],
)
def test_what_an_entry_lacks_is_said_in_these_words(content: dict[str, Any], reason: str) -> None:
    entry = {"file": "a.csv", "line": 7, "reason": "x", **content}
    assert refusals(read_bytes(json.dumps(entry).encode())) == [(1, reason)]


def test_an_entry_keeps_its_delimiter_its_record_and_its_bytes(tmp_path: Path) -> None:
    rejects, again = tmp_path / "rejects.jsonl", tmp_path / "again.jsonl"
    with RejectsFile(str(rejects)) as file:
        file.write(Refusal("a.csv", 2, "x", b"oops 1;two words", header=b"completion_id;the grade", delimiter=";"))
        file.write(Refusal("a.json", 9, "x", b"\xff", record=3))
        file.write(Refusal("a.csv", 5, "x", b"oops 1,A", header=b"completion_id,grade", delimiter=","))
    row, value, plain = entries_of(rejects)
    assert row == {
        "file": "a.csv",
        "line": 2,
        "reason": "x",
        "header": "completion_id;the grade",
        "delimiter": ";",
        "text": "oops 1;two words",
    }
    assert value == {"file": "a.json", "line": 9, "reason": "x", "record": 3, "base64": "/w=="}
    assert "delimiter" not in plain
    assert [entry.get("delimiter") for entry in write_rejects(again, rejects)] == [";", None, None]
    put_entries(rejects, [row | {"text": "c1;two words"}])
    assert read_file(rejects) == [MetadataChange("c1", {"the grade": "two words"})]


def test_a_hint_on_a_repaired_line_is_about_that_line() -> None:
    entry = {"file": "a.jsonl", "line": 7, "reason": "x", "text": '{"id": "x", "metadata": {}}'}
    (refusal,) = read_bytes(json.dumps(entry).encode())
    assert isinstance(refusal, Refusal)
    assert (refusal.line, refusal.hint) == (1, "--id-column id takes that field for the id")
    (unrepaired,) = read_bytes(json.dumps(entry | {"text": "{"}).encode())
    assert isinstance(unrepaired, Refusal)
    assert (unrepaired.raw, unrepaired.hint) == (b"{", "")


def test_a_missing_file_is_not_the_one_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").touch()
    with RejectsFile(str(tmp_path / "a.jsonl"), inputs=[str(tmp_path / "missing"), "a\0b", str(tmp_path / "b.jsonl")]):
        pass
    with RejectsFile("/dev/null", inputs=["/dev/null"]):  # which is no file with content to lose
        pass


def test_letters_are_written_as_they_are_so_that_a_person_can_repair_them(tmp_path: Path) -> None:
    with RejectsFile(str(tmp_path / "r.jsonl")) as rejects:
        rejects.write(Refusal("größe.jsonl", 1, "x", "größe".encode()))
    assert (tmp_path / "r.jsonl").read_text(encoding="utf-8").count("größe") == 2


def test_a_file_that_is_closed_by_hand_goes_where_all_was_read_and_nothing_refused(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    path.write_text("of an older run", encoding="utf-8")
    RejectsFile(str(path)).close(done=False)
    assert path.exists()
    RejectsFile(str(path)).close()
    assert not path.exists()


def test_a_file_of_another_user_who_lets_us_write_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchmod", refuse)
    with RejectsFile(str(tmp_path / "r.jsonl")) as rejects:
        rejects.write(Refusal("a.jsonl", 1, "x", b"y"))
    assert len(entries_of(tmp_path / "r.jsonl")) == 1


def test_refused_lines_are_utf8_wherever_the_process_runs(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    program = (
        "import sys\nfrom worker.changes.files import Refusal, RejectsFile\n"
        "with RejectsFile(sys.argv[1]) as r: r.write(Refusal('a', 1, 'x', b'gr\\xc3\\xb6\\xc3\\x9fe'))\n"
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", program, str(path)], env=os.environ | plain, check=True, timeout=60)
    assert "größe" in path.read_text(encoding="utf-8")


def test_an_entry_may_have_all_the_fields_that_there_are() -> None:
    entry = {
        "file": "a.csv",
        "line": 7,
        "record": 1,
        "reason": "x",
        "header": "completion_id;grade",
        "delimiter": ";",
        "text": "",
        "base64": "YzE7QQ==",
        "cut": False,
    }
    assert read_bytes(json.dumps(entry).encode()) == [MetadataChange("c1", {"grade": "A"})]
