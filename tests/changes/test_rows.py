"""Rows of CSV: valid changes, where a bad row ends, and the messages."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.changes.reading import SECRET, Items, csv_of, ids, named, read_bytes, read_file, refusals, unhurried
from worker.changes import MetadataChange, Mode
from worker.changes.files import ChangeFile, Refusal, RejectsFile, UnreadableFile
from worker.changes.lines import MAX_LINE_BYTES
from worker.changes.reading import Empty


def test_every_other_column_is_a_metadata_key() -> None:
    content = csv_of(["grade", "completion_id", "reviewer"], ["good", "c1", "ann"], ["bad", "c2", "bob"])

    assert read_bytes(content, "csv") == [
        MetadataChange("c1", {"grade": "good", "reviewer": "ann"}),
        MetadataChange("c2", {"grade": "bad", "reviewer": "bob"}),
    ]


BLANKS = csv_of(
    ["completion_id", "mode", "change_id", "metadata", "grade", "topic"],
    ["c1", "", "", "", "", ""],
    ["c2", "", "id2", "", '""', "x"],
    ["c3", "", "", '"{}"', "", ""],
    ["c4", "merge", "", "", "", ""],
    ["", "", " ", "", "", '""'],
    [",,"],
    ["c5", "replace", "", "", "A", ""],
    ["nan", "", "", "", "", ""],
)
ERASES = "every cell is blank, and in mode replace that would erase all metadata"
NO_ID = "completion_id 'nan' stands for no value: the id is missing"


def outcomes(content: bytes, mode: Mode, empty: Empty) -> list[object]:
    """Each row's metadata, reason, or None for one that is passed over."""
    items = read_bytes(content, "csv", mode, empty=empty)
    return [item.reason if isinstance(item, Refusal) else item and dict(item.metadata) for item in items]


def test_a_blank_cell_keeps_its_key_and_a_row_that_sets_nothing_is_passed_over() -> None:
    assert outcomes(BLANKS, "merge", "keep") == [None, {"topic": "x"}, {}, None, None, None, {"grade": "A"}, NO_ID]


def test_a_row_of_blanks_does_not_erase_everything_in_mode_replace() -> None:
    found = outcomes(BLANKS, "replace", "keep")

    assert found == [ERASES, {"topic": "x"}, {}, None, None, None, {"grade": "A"}, NO_ID]
    hint = refusal_in(read_bytes(BLANKS, "csv", "replace")).hint
    assert hint == "--empty remove takes a blank cell for a value that is to go"


def test_blank_cells_remove_their_keys_when_that_is_what_they_mean() -> None:
    gone = {"grade": None, "topic": None}

    in_merge = outcomes(BLANKS, "merge", "remove")
    in_replace = outcomes(BLANKS, "replace", "remove")

    assert in_merge == [gone, gone | {"topic": "x"}, gone, gone, None, None, {"grade": "A"}, NO_ID]
    assert in_replace == [{}, {"topic": "x"}, {}, gone, None, None, {"grade": "A"}, NO_ID]


def refusal_in(items: Items) -> Refusal:
    return next(item for item in items if isinstance(item, Refusal))


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (b"completion_id,grade", "the header row again, as where files were joined: take it out"),
        (b'"completion_id","grade"', "the header row again"),
        (b"\xef\xbb\xbfcompletion_id,grade", "the header row again"),
        (b'\xef\xbb\xbf"completion_id","grade"', "the header row again"),
        (b"Completion_ID,Grade", "completion_id 'Completion_ID' is the field's name: a header row"),
        (b"\xef\xbb\xbfc2,B", "the row starts with a byte order mark, as where files were joined: take it out"),
    ],
)
def test_leftovers_of_joined_files_are_refused(again: bytes, reason: str) -> None:
    items = read_bytes(b"completion_id,grade\nc1,A\n" + again + b"\nc3,C\n", "csv")

    assert ids(items) == ["c1", "c3"]
    assert [line for line, _ in refusals(items)] == [3]
    assert reason in refusals(items)[0][1]
    assert (refusal_in(items).source, refusal_in(items).hint) == ("<stdin>", "")


@pytest.mark.parametrize("other", [b"grade,completion_id", b"completion_id,topic", b"topic,completion_id"])
def test_rows_under_another_files_header_are_refused_and_can_be_enqueued_from_the_rejects(
    tmp_path: Path, other: bytes
) -> None:
    content = b"completion_id,grade\nc1,A\n" + other + b"\nx,y\nx,z\ncompletion_id,grade\nc4,D\n"

    items = read_bytes(content, "csv")

    assert ids(items) == ["c1", "c4"]
    assert [line for line, _ in refusals(items)] == [3, 4, 5, 6]
    assert "another header row" in refusals(items)[0][1]
    assert refusals(items)[1][1].startswith("it stands under another header, in line 3")
    with RejectsFile(str(tmp_path / "rejects.jsonl")) as rejects:
        for item in items[2:4]:
            assert isinstance(item, Refusal)
            rejects.write(item)
    own = read_bytes(other + b"\nx,y\nx,z\n", "csv")
    assert read_file(tmp_path / "rejects.jsonl") == own
    assert len(ids(own)) == 2


def test_cells_may_be_separated_by_something_else_and_rejects_remember_it(tmp_path: Path) -> None:
    content = b'sep=;\ncompletion_id;grade;topic\nc1;a,b;"x;y"\n;A;B\n'

    items = read_bytes(content, "csv", delimiter=";")

    assert items[0] == MetadataChange("c1", {"grade": "a,b", "topic": "x;y"})
    refused = refusal_in(items)
    with RejectsFile(str(tmp_path / "rejects.jsonl")) as rejects:
        rejects.write(dataclasses.replace(refused, raw=b"c2" + refused.raw))
    assert read_file(tmp_path / "rejects.jsonl") == [MetadataChange("c2", {"grade": "A", "topic": "B"})]


def test_the_id_may_stand_in_a_column_of_another_name() -> None:
    content = b"id,grade\nc1,A\nid,grade\nc2,id\n"

    items = read_bytes(content, "csv", id_column="id")

    assert items[0] == MetadataChange("c1", {"grade": "A"})
    assert items[2] == MetadataChange("c2", {"grade": "id"})
    assert refusals(items) == [(3, "the header row again, as where files were joined: take it out")]


KEYS = {"mode": "a", "completion_id": "b", "metadata": "c", "metadata.x": "d"}
ODD_KEYS = {"Mode": "e", " grade": "f", "Unnamed: 0": "g"}


def test_a_prefix_lets_a_key_have_the_name_of_a_column() -> None:
    content = csv_of(
        [
            *("completion_id", "metadata.mode", "metadata.completion_id", "metadata.metadata", "metadata.metadata.x"),
            *("metadata.Mode", "metadata. grade", "metadata.Unnamed: 0"),
        ],
        ["c1", "a", "b", "c", "d", "e", "f", "g"],
    )

    assert read_bytes(content, "csv") == [MetadataChange("c1", KEYS | ODD_KEYS)]


def test_quoted_cells_hold_commas_quotes_and_ends_of_lines() -> None:
    content = b'\xef\xbb\xbf"completion_id","a ""b""",c\r\nc1,"x,\r\ny ""z""",\r\nc2,"",last'

    assert read_bytes(content, "csv") == [
        MetadataChange("c1", {'a "b"': 'x,\r\ny "z"'}),
        MetadataChange("c2", {"c": "last"}),
    ]


def test_null_in_the_column_metadata_removes_a_key() -> None:
    content = b'completion_id,metadata\nc1,"{""a"":null}"\n'

    assert read_bytes(content, "csv") == [MetadataChange("c1", {"a": None})]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("grade,reviewer", "the header has no column completion_id"),
        (f"chatcmpl-1,{SECRET},{SECRET}", "the header has no column completion_id"),
        ("Completion_ID,grade", "the header has no column completion_id"),
        ("Completion ID,grade", "but 'Completion ID': --id-column 'Completion ID' takes that one"),
        ("id,grade", "but 'id': --id-column 'id' takes that one"),
        ("completionId,grade", "but 'completionId': --id-column 'completionId' takes that one"),
        (" completion_id,grade", "but ' completion_id': --id-column ' completion_id' takes that one"),
        ("completion_id,Completion_Id", "column 'Completion_Id' is nearly completion_id"),
        ("completion_id, grade", "' grade' has white space around it: write 'grade', or 'metadata. grade' for"),
        ("completion_id,grade\u00a0", "has white space around it"),
        ("completion_id,\ufeffgrade\u200b", "has white space around it: write 'grade', or 'metadata."),
        ("completion_id,Metadata.a.b", "is nearly 'metadata.a.b': write that, or 'metadata.Metadata.a.b'"),
        ("completion_id,Mode", "column 'Mode' is nearly mode: write mode, or 'metadata.Mode' for a metadata key"),
        ("completion_id,Metadata", "column 'Metadata' is nearly metadata: write metadata, or 'metadata.Metadata'"),
        ("completion_id,changeId", "column 'changeId' is nearly change_id"),
        ("completion_id,change_id ", "column 'change_id ' is nearly change_id"),
        ("completion_id,Change ID", "column 'Change ID' is nearly change_id"),
        ("completion_id,Metadata.grade", "is nearly 'metadata.grade': write that, or 'metadata.Metadata.grade'"),
        ("Unnamed: 0,completion_id", "column 'Unnamed: 0' is the index that pandas writes: index=False leaves it out"),
        (",completion_id,grade", "column 1 of the header has no name (the index that pandas writes?"),
        ("metadata.completion_id,grade", "the header has no column completion_id"),
        ("completion_id,grade,", "column 3 of the header has no name"),
        ("completion_id,metadata.,grade", "column 2 of the header has no name"),
        ("completion_id,completion_id", "the header names 'completion_id' twice"),
        ("completion_id,mode,mode", "the header names 'mode' twice"),
        ("completion_id,grade,metadata.grade", "the header names 'grade' twice"),
        ("completion_id," + "k" * 65, "has 65 characters, more than 64"),
        ("completion_id,a\0b", r"metadata key 'a\x00b' holds a NUL"),
        ('completion_id,"grade', "the quote that opens cell 2 has no end"),
        ("x" * (MAX_LINE_BYTES + 1), "the line is longer than 1 MiB"),
    ],
    ids=named,
)
def test_a_bad_header_refuses_the_file(header: str, reason: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        read_bytes(f"\n{header}\nchatcmpl-1,good\n".encode(), "csv")

    refusal = caught.value.refusal
    assert refusal.line == 2
    assert reason in refusal.reason
    assert refusal.raw == (header.encode()[:4096] if refusal.cut else header.encode())
    assert str(caught.value) == f"<stdin>:2: {caught.value.refusal.reason}"
    assert SECRET not in str(caught.value)


def test_a_header_that_is_not_utf8_refuses_the_file() -> None:
    with pytest.raises(UnreadableFile, match="<stdin>:1: column name 2 is not UTF-8: byte 3 is invalid"):
        read_bytes(b"completion_id,gr\xfc\xdfe\n", "csv")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"c1,merge,i1,", "the row has 4 cells where the header has 5"),
        (b"c1", "the row has 1 cells where the header has 5"),
        (b"c1,merge,i1,,good,s3cret-value", "the row has 6 cells where the header has 5"),
        (b",merge,i1,,s3cret-value", "completion_id '' is not one"),
        (b"../x,merge,i1,,s3cret-value", "completion_id '../x' is not one"),
        (b" c1,,,,", "completion_id ' c1' is not one"),
        (b"c1,append,i1,,s3cret-value", "mode must be one of merge, replace, not 'append'"),
        (b"c1,," + b"i" * 257 + b",,", "change_id must have 1 to 256 characters, not 257"),
        (b"c1,,,," + b"s3cret-value" * 50, "the value of metadata key 'grade' has 600 characters, more than 512"),
        (b"c1,,,,s3cret-value\xff", "the cell of column 'grade' is not UTF-8: byte 13 is invalid"),
        (b'c1,,,,"s3cret-value\n\xff"', "the cell of column 'grade' is not UTF-8: byte 14 is invalid"),
        (b"c1,,,,s3cret-value\0", "the value of metadata key 'grade' holds a NUL"),
        (b"c1\0,,,,", r"completion_id 'c1\x00' is not one"),
        (
            b'c1,,,"{""grade"":""a""}",s3cret-value',
            "duplicate key 'grade': in the column metadata and in one of its own",
        ),
        (b'c1,,,"{""a"":""s3cret-value"",""a"":""b""}",', "column metadata: duplicate key 'a'"),
        (b"c1,,,s3cret-value,", "column metadata: not JSON: expecting value at column 1"),
        (b"c1,,,[],", "column metadata must hold a JSON object, not an array"),
        (b"c1,,," + b"[" * 100_000 + b",", "column metadata: nested too deeply"),
        (b'c1,replace,,"{""a"":null}",', "metadata key 'a' is null, which has no meaning in mode replace"),
        (b'c1,,,"{""a"":1}",', "the value of metadata key 'a' must be a string, not a number"),
        (b'c1,,,,5" pipe', "cell 5 holds a quote or a carriage return, but is not enclosed in quotes"),
        (b'c1,,,,the "s3cret-value" one', "cell 5 holds a quote or a carriage return"),
        (b"c1,,,,a\rc2,,,,b", "cell 5 holds a quote or a carriage return, but is not enclosed in quotes"),
        (b'c1,,,,"s3cret-value" x', "the quote that opens cell 5 has no end, or not at the cell's end"),
        (b'c1,,,,"s3cret-value', "the quote that opens cell 5 has no end, or not at the cell's end"),
        (b"c1,,,," + b"x" * MAX_LINE_BYTES, "the line is longer than 1 MiB"),
        (b'c1,,,,"' + (b"x" * 99_999 + b"\n") * 10 + b"x" * 99_999 + b'"', "the row is longer than 1 MiB"),
    ],
    ids=named,
)
def test_a_bad_row_is_named_with_its_first_line_and_reason_and_the_others_go_in(row: bytes, reason: str) -> None:
    content = b'completion_id,mode,change_id,metadata,grade\nc0,,,,"two\nlines"\n' + row + b"\r\nc9,,,,fine\n"

    items = read_bytes(content, "csv")

    assert ids(items) == ["c0", "c9"]
    refusal = items[1]
    assert isinstance(refusal, Refusal)
    assert refusal.line == 4
    assert reason in refusal.reason
    assert SECRET not in f"{refusal} {refusal!r}"
    assert refusal.raw == (row[:4096] if refusal.cut else row)
    assert refusal.header == b"completion_id,mode,change_id,metadata,grade"


@pytest.mark.parametrize("following", [3, 2_200], ids=["to the end of the file", "for more than 1 MiB"])
def test_a_quote_that_is_never_closed_costs_only_its_own_row(following: int) -> None:
    rows = "".join(f"c{number},{'good and fine ' * 36}\n" for number in range(following))
    content = f'completion_id,grade\nfirst,good\nbad,"oops\n{rows}'.encode()

    items = read_bytes(content, "csv")

    assert [line for line, _ in refusals(items)] == [3]
    assert ids(items) == ["first", *(f"c{number}" for number in range(following))]


def test_a_quote_that_is_never_closed_is_followed_for_a_mebibyte_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('completion_id,grade\nbad,"oops\n' + f"c,{'good and fine ' * 36}\n" * 8_000)
    with ChangeFile.open(str(path)) as file:
        line, item = next(iter(file))
        was_read = file.bytes_read
    assert (line, type(item)) == (2, Refusal)
    assert MAX_LINE_BYTES < was_read < 1.5 * MAX_LINE_BYTES


def test_a_stray_quote_does_not_swallow_the_rows_up_to_the_next_quote() -> None:
    content = b'completion_id,grade\nbad,"oops\nc1,good\nc2,"fine, too"\nc3,"x ""y"" z"\n'

    items = read_bytes(content, "csv")

    assert [line for line, _ in refusals(items)] == [2]
    assert ids(items) == ["c1", "c2", "c3"]


def test_rows_between_two_stray_quotes_are_read_and_only_the_two_are_refused() -> None:
    lines = [f"chatcmpl-{number},n{number}" for number in range(1, 31)]
    lines[4], lines[19] = 'chatcmpl-5,"5 inches', 'chatcmpl-20,ruler 20"'
    content = "\r\n".join(["completion_id,note", *lines, ""]).encode()

    items = read_bytes(content, "csv")

    assert [line for line, _ in refusals(items)] == [6, 21]
    assert "look like rows" in refusals(items)[0][1]
    assert ids(items) == [f"chatcmpl-{number}" for number in range(1, 31) if number not in (5, 20)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("swallowed", ["chatcmpl-2,n 2 b", '"chatcmpl-2","n 2 b"'])
def test_one_row_alone_is_not_swallowed_either(swallowed: str, end: str) -> None:
    content = end.join(["completion_id,note", 'chatcmpl-1,"5 inches', swallowed, 'chatcmpl-3,ruler 20"', ""]).encode()

    items = read_bytes(content, "csv")

    assert [item.raw for item in items if isinstance(item, Refusal)] == [
        b'chatcmpl-1,"5 inches',
        b'chatcmpl-3,ruler 20"',
    ]
    assert ids(items) == ["chatcmpl-2"]


def test_two_rows_with_stray_quotes_one_after_the_other_are_refused_each_for_itself() -> None:
    items = read_bytes(b'completion_id,note\nchatcmpl-1,"5\nchatcmpl-2,20"\nchatcmpl-3,fine\n', "csv")

    assert [line for line, _ in refusals(items)] == [2, 3]
    assert ids(items) == ["chatcmpl-3"]


@pytest.mark.parametrize("note", ["see\nchatcmpl-7", "two\nlines, and a comma", "a\nchatcmpl-7,b,c"])
def test_a_cell_of_several_lines_stays_whole_where_they_are_no_rows(note: str) -> None:
    content = f'completion_id,note\nchatcmpl-1,"{note}"\n'.encode()

    [item] = read_bytes(content, "csv")

    assert isinstance(item, MetadataChange)
    assert item.metadata == {"note": note}


def test_a_stray_quote_in_a_later_line_of_a_row_is_named_with_that_line() -> None:
    content = b'completion_id,a,b\nc1,"two\nlines","oops\nc2,x,y\n'

    items = read_bytes(content, "csv")

    assert len(refusals(items)) == 1
    assert refusals(items)[0][0] == 2
    assert refusals(items)[0][1].endswith("(line 3)")
    assert ids(items) == ["c2"]
    assert isinstance(items[0], Refusal)
    assert items[0].raw == b'c1,"two\nlines","oops'


def test_a_line_that_is_too_long_ends_a_row_with_an_open_quote() -> None:
    content = b'completion_id,a\nc1,"oops\n' + b"x" * (MAX_LINE_BYTES + 1) + b"\nc2,y\n"

    items = read_bytes(content, "csv")

    assert [line for line, _ in refusals(items)] == [2, 3]
    assert ids(items) == ["c2"]


def test_blank_lines_between_rows_are_skipped_and_counted() -> None:
    items = read_bytes(b"\n\r\ncompletion_id,a\n\nc1,x\n  \nbad\n", "csv")

    assert ids(items) == ["c1"]
    assert [line for line, _ in refusals(items)] == [7]


CELLS = st.text(st.sampled_from(['"', ",", "\n", "\r", "a", "ü", " "]), max_size=6)


@unhurried
@given(values=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_what_the_standard_library_writes_is_read_back(values: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["completion_id", "a", "metadata"])
    for number, (plain, nested) in enumerate(values):
        writer.writerow([f"c{number}", plain, json.dumps({"b": nested})])

    assert read_bytes(text.getvalue().encode(), "csv") == [
        MetadataChange(f"c{number}", {"b": nested} | ({"a": plain} if plain else {}))
        for number, (plain, nested) in enumerate(values)
    ]


PIECES = st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"c1,x\n", b'c1,"x"\n']))


@unhurried
@given(content=st.lists(PIECES, max_size=30).map(b"".join))
@example(content=b"\xef\xbb\xbf")
def test_random_rows_never_crash_and_leave_no_line_out(content: bytes) -> None:
    items: Items = [item for item in read_bytes(b"completion_id,grade\n" + content, "csv", "replace") if item]

    if not content.strip(b" \t\n\r\v\f"):
        assert items == []
        return
    refused = [line for line, _ in refusals(items)]
    assert refused == sorted(set(refused))
    covered = b"".join(item.raw for item in items if isinstance(item, Refusal)) + b"".join(
        f"{item.completion_id}{''.join(value or '' for value in item.metadata.values())}".encode()
        for item in items
        if isinstance(item, MetadataChange)
    )
    assert sorted(covered.translate(None, b'", \t\n\r\v\f')) == sorted(content.translate(None, b'", \t\n\r\v\f'))


def test_unknown_columns_are_skipped_on_request() -> None:
    text = b'completion_id,model,mode,metadata,metadata.grade,metadata.model\nx,gpt,replace,"{""a"": ""b""}",A,own\n'
    wanted = MetadataChange("x", {"a": "b", "grade": "A", "model": "own"}, "replace")
    assert read_bytes(text, "csv", ignore_unknown=True) == [wanted]
    assert read_bytes(b"completion_id,model,metadata.grade\nx,gpt,A\n", "csv") == [
        MetadataChange("x", {"model": "gpt", "grade": "A"})
    ]


def test_a_delimiter_that_is_named_before_nothing_is_no_row() -> None:
    assert read_bytes(b"sep=,\n", "csv") == []
    assert read_bytes(b"sep=,\n\ncompletion_id,a\nc1,x\n", "csv") == [MetadataChange("c1", {"a": "x"})]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Ref No,grade", "the header has no column ref_no, but 'Ref No': --id-column 'Ref No' takes that one"),
        ("id,completion_id", "the header has no column ref_no"),
        ("ref\x01no,grade", "the header has no column ref_no"),
        ("grade", "the header has no column ref_no"),
    ],
)
def test_a_column_that_may_be_the_one_that_was_asked_for_is_named(header: str, reason: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        read_bytes(f"{header}\nx,y\n".encode(), "csv", id_column="ref_no")
    assert caught.value.refusal.reason == reason


AS_A_KEY = " for a metadata key of that name"
LEFT_OUT = "index=False leaves it out"


def test_a_header_and_a_row_are_refused_in_these_words() -> None:
    for header, reason in (
        ("grade", "the header has no column completion_id"),
        (
            ",completion_id",
            "column 1 of the header has no name (the index that pandas writes? index=False leaves it out)",
        ),
        ("completion_id,", "column 2 of the header has no name"),
        (
            "completion_id,Mode",
            "column 'Mode' is nearly mode: write mode, or 'metadata.Mode' for a metadata key of that name",
        ),
        (
            "completion_id, grade",
            f"column ' grade' has white space around it: write 'grade', or 'metadata. grade'{AS_A_KEY}",
        ),
        (
            "completion_id,Unnamed: 0",
            f"column 'Unnamed: 0' is the index that pandas writes: {LEFT_OUT}; 'metadata.Unnamed: 0'{AS_A_KEY}",
        ),
        (
            "completion_id,Metadata.grade",
            f"column 'Metadata.grade' is nearly 'metadata.grade': write that, or 'metadata.Metadata.grade'{AS_A_KEY}",
        ),
        ("completion_id,a,a", "the header names 'a' twice"),
    ):
        with pytest.raises(UnreadableFile) as caught:
            read_bytes(f"{header}\n".encode(), "csv")
        assert caught.value.refusal.reason == reason
    for row, reason in (
        ('c1,"x', "the quote that opens cell 2 has no end, or not at the cell's end; quotes inside are doubled"),
        ('c1,x"', "cell 2 holds a quote or a carriage return, but is not enclosed in quotes"),
        (f'c1,"{"x" * 99_999}' + f"\n{'x' * 99_999}" * 10 + '"', "the row is longer than 1 MiB"),
        ('c1,"[]"', "column metadata must hold a JSON object, not an array"),
    ):
        column = "metadata" if "[]" in row else "grade"
        found = refusals(read_bytes(f"completion_id,{column}\n{row}\n".encode(), "csv"))
        assert found == [(2, reason)]


def test_a_dot_in_a_name_is_part_of_the_key() -> None:
    assert read_bytes(b"completion_id,a.b,.c\nc1,x,y\n", "csv") == [MetadataChange("c1", {"a.b": "x", ".c": "y"})]


def test_a_short_header_row_of_another_file_is_one_all_the_same() -> None:
    items = read_bytes(b"grade,id\nA,c1\nid\nc2\n", "csv", id_column="id")
    assert ids(items) == ["c1"]
    assert refusals(items) == [
        (3, "another header row, as where files were joined: take it out"),
        (4, "it stands under another header, in line 3: enqueue those rows as a separate file"),
    ]


def refused_row(row: bytes) -> Refusal:
    (refusal,) = read_bytes(b"completion_id,grade\n" + row + b"\n", "csv")
    assert isinstance(refusal, Refusal)
    return refusal


def test_a_row_of_a_mebibyte_is_read_and_a_longer_one_is_cut() -> None:
    first = b'c1,"' + b"x" * 500_000 + b"\n"
    longest = first + b"x" * (MAX_LINE_BYTES - len(first) - 1) + b'"'
    assert "must" not in refused_row(longest).reason
    assert refused_row(longest).reason.endswith("characters, more than 512")
    too_long = refused_row(first + b"x" + longest[len(first) :])
    assert (too_long.reason, too_long.cut, too_long.line) == ("the row is longer than 1 MiB", True, 2)


def test_a_quote_that_is_closed_right_after_a_mebibyte_was_none_that_stays_open() -> None:
    first = b'c1,"' + b"x" * (MAX_LINE_BYTES - 4)
    assert refused_row(first + b'\ny"').reason == "the row is longer than 1 MiB"


def test_a_row_may_have_as_many_lines_as_there_is_room_for() -> None:
    reason = refused_row(b'c1,"' + (b"x" * 261 + b"\n") * 4_000 + b'"').reason
    assert reason == "the value of metadata key 'grade' has 1048000 characters, more than 512"


def test_a_stray_quote_behind_a_byte_order_mark_is_named_with_its_line() -> None:
    items = read_bytes(b'completion_id,a,b\nc1,x,y\n\xef\xbb\xbfc2,"a\nb","oops\nc3,x,y\n', "csv")
    assert ids(items) == ["c1", "c3"]
    assert [line for line, _ in refusals(items)] == [3]
    assert refusals(items)[0][1].endswith("(line 4)")
