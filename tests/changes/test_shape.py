"""A file's first bytes: the format that is meant, and what the user of another one is told."""

import io
from pathlib import Path

import pytest

from tests.changes.reading import read_bytes
from worker.changes import MetadataChange
from worker.changes.files import ChangeFile, Format, Item, Reading, UnreadableFile

CHANGE = MetadataChange("c1", {"grade": "A"})
LINE = b'{"completion_id": "c1", "metadata": {"grade": "A"}}'
ROWS = b"completion_id,grade\nc1,A\n"

UTF_16 = "this is UTF-16 text: save it as UTF-8, or convert it with `iconv -f UTF-16 -t UTF-8`"
SAY_CSV = "this looks like CSV, not JSON: say --format csv"
SAY_JSONL = "this looks like JSON, not CSV: say --format jsonl"
SEMICOLONS = "the cells are separated by ';': say --delimiter ';'"
TABS = "the cells are separated by tab: say --delimiter tab"
PIPES = "the cells are separated by '|': say --delimiter '|'"


def read(content: bytes, form: Format | None = None, **more: object) -> list[Item]:
    reading = Reading(format=form, **more)  # type: ignore[arg-type]  # the field's own type
    with ChangeFile.open("-", reading, stdin=io.BytesIO(content)) as file:
        return [item for _, item in file]


def refused(content: bytes, form: Format | None = None, **more: object) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read(content, form, **more)
    assert (caught.value.refusal.source, caught.value.refusal.line) == ("<stdin>", 0)
    return caught.value.refusal.reason


@pytest.mark.parametrize("form", [None, "json", "csv"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04more", "this is an Excel workbook, or another zip archive: save it as CSV (UTF-8), or unpack it"),
        (b"\xd0\xcf\x11\xe0more", "this is an Excel workbook: save it as CSV (UTF-8)"),
        (b"PAR1more", "this is a Parquet file: write it as JSON lines or CSV"),
        (b"SQLite format 3\0more", "this is a SQLite database, not a file of changes"),
        (
            b"BZh91AY",
            "this is bzip2 data, and of those only gzip is read: `bzip2 -dc FILE | metasync enqueue -`",
        ),
        (b"\xfd7zXZ\0\0", "this is xz data, and of those only gzip is read: `xz -dc FILE | metasync enqueue -`"),
        (
            b"\x28\xb5\x2f\xfd\0",
            "this is zstd data, and of those only gzip is read: `zstd -dc FILE | metasync enqueue -`",
        ),
        (LINE.decode().encode("utf-16"), UTF_16),
        (LINE.decode().encode("utf-16-le"), UTF_16),
        (ROWS.decode().encode("utf-16-be"), UTF_16),
        (b"\xfe\xff\x04\x10", UTF_16),
        (b"\0\0\xfe\xff\0\0\x04\x10", UTF_16),
    ],
)
def test_a_file_of_another_kind_is_named_and_what_helps(content: bytes, reason: str, form: Format | None) -> None:
    assert refused(content, form) == reason


@pytest.mark.parametrize("content", [ROWS.replace(b"\n", b"\r"), b"\n".join([LINE]) + b"\r" + LINE + b"\r"])
def test_lines_that_end_with_carriage_returns_alone_are_no_lines(content: bytes) -> None:
    reason = "its lines end with carriage returns alone: `tr '\\r' '\\n' < FILE` makes lines of them"
    assert refused(content, "csv" if content.startswith(b"comp") else None) == reason


@pytest.mark.parametrize("content", [LINE, LINE + b"\r", LINE + b"\r\n"])
def test_a_single_line_may_end_as_it_likes(content: bytes) -> None:
    assert read(content) == [CHANGE]


def test_a_carriage_return_in_a_quoted_name_is_part_of_it() -> None:
    assert read(b'completion_id,"a\rb"\nc1,x\n', "csv") == [MetadataChange("c1", {"a\rb": "x"})]


@pytest.mark.parametrize(
    "content",
    [
        b"[" + LINE + b"]",
        b"\xef\xbb\xbf\n \t\n [" + LINE + b"]",
        b'{\n"completion_id": "c1",\n"metadata": {"grade": "A"}}\n',
        b'{"completion_id": "c1", "metadata":\n{"grade": "A"}}\n',
        b'["junk"]\n' + LINE,
    ],
)
def test_json_over_several_lines_is_told_from_json_lines(content: bytes) -> None:
    with ChangeFile.open("-", stdin=io.BytesIO(content)) as file:
        assert file.form == "json"
        assert CHANGE in [item for _, item in file]


@pytest.mark.parametrize(
    "content",
    [
        LINE,
        LINE + b"\n" + LINE,
        b'{"completion_id"',  # cut off: there is no second line
        b'{"completion_id": "c1\n' + LINE,  # a string does not span lines
        b'{"completion_id": ]\n' + LINE,  # nothing that follows makes this an object
        b"null\n" + LINE,
    ],
)
def test_a_first_line_that_is_whole_or_hopeless_is_a_line(content: bytes) -> None:
    with ChangeFile.open("-", stdin=io.BytesIO(content)) as file:
        assert file.form == "jsonl"


def test_a_format_that_is_given_is_not_guessed() -> None:
    for content, form in ((LINE, "json"), (ROWS, "csv")):
        with ChangeFile.open("-", Reading(format=form), stdin=io.BytesIO(content)) as file:  # type: ignore[arg-type]  # a word of `Format`
            assert file.form == form
            assert [item for _, item in file] == [CHANGE]


@pytest.mark.parametrize(
    "header",
    [
        b"completion_id,grade",
        b"grade;completion_id",
        b"grade\tcompletion_id\tmore",
        b"grade|completion_id",
        b" Completion-ID ,grade",
        b"'completion_id',grade",
        b'"id","grade"',
        b"id,gr\xfc\xdfe",
        b"\n\nid,grade",
    ],
)
@pytest.mark.parametrize("form", [None, "json"])
def test_rows_that_are_read_as_json_are_recognised_by_their_header(header: bytes, form: Format | None) -> None:
    assert refused(header + b"\nc1,A\n", form) == SAY_CSV


def test_a_header_is_recognised_by_the_column_that_is_named_for_the_id() -> None:
    assert refused(b"grade,Ref No\nA,c1\n", id_column="ref_no") == SAY_CSV
    assert read_bytes(b"grade,Ref No\nA,c1\n")[0] is not None


@pytest.mark.parametrize(
    "line",
    [
        b"hello, world",
        b"completion_id",
        b"ids, grades",
        b"idX, grades",
        b"a;b|c",
        b"1,2,3",
        b"completion_id=c1, grade=A",
    ],
)
def test_a_bad_first_line_is_a_bad_line_and_not_another_format(line: bytes) -> None:
    bad, good = read_bytes(line + b"\n" + LINE)
    assert good == CHANGE
    assert "not JSON: " in str(bad)


@pytest.mark.parametrize("start", [b'{"completion_id": "c1", "metadata": {"grade": "x, id, y"}}', b'["x, id, y"]'])
def test_json_that_holds_the_name_of_the_column_is_json(start: bytes) -> None:
    assert read(start)


@pytest.mark.parametrize("content", [LINE, b"[" + LINE + b"]", b" \n" + LINE])
def test_json_that_is_read_as_rows_is_recognised(content: bytes) -> None:
    assert refused(content, "csv") == SAY_JSONL


@pytest.mark.parametrize(
    ("content", "delimiter", "reason"),
    [
        (b"completion_id;grade\n", None, SEMICOLONS),
        (b"completion_id\tgrade\n", None, TABS),
        (b"completion_id|grade\n", ",", PIPES),
        (b"completion_id;gr\xfc\xdfe\n", None, SEMICOLONS),
        (b"completion_id,grade\n", ";", "the cells are separated by ',': say --delimiter ','"),
        (b"sep=;\ncompletion_id;grade\n", None, f"the first line says that {SEMICOLONS[4:]}"),
        (
            b"SEP=\t\ncompletion_id\tgrade\n",
            None,
            "the first line says that cells are separated by tab: say --delimiter tab",
        ),
        (b"sep=|\r\ncompletion_id|grade\n", ";", f"the first line says that {PIPES[4:]}"),
        (b"sep=:\n", None, "the first line says that cells are separated by ':': say --delimiter ':'"),
        (b"sep=\xff\n", None, "the first line says that cells are separated by '\ufffd': say --delimiter '\ufffd'"),
    ],
)
def test_another_delimiter_is_named_with_the_flag_for_it(content: bytes, delimiter: str | None, reason: str) -> None:
    assert refused(content, "csv", delimiter=delimiter) == reason


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        (ROWS, None),
        (ROWS.replace(b",", b";"), ";"),
        (ROWS.replace(b",", b"\t"), "\t"),
        (ROWS.replace(b",", b":"), ":"),
        (b"sep=,\n" + ROWS, None),
        (b"\xef\xbb\xbfsep=,\r\n" + ROWS, None),
        (b"Sep=;\n" + ROWS.replace(b",", b";"), ";"),
        (b'completion_id,"a;id;b"\nc1,A\n', None),
    ],
)
def test_rows_are_read_with_the_delimiter_that_is_said(content: bytes, delimiter: str | None) -> None:
    (change,) = read(content, "csv", delimiter=delimiter)
    assert isinstance(change, MetadataChange)
    assert (change.completion_id, list(change.metadata.values())) == ("c1", ["A"])


@pytest.mark.parametrize("header", [b"completion_id;grade,more", b"completion_id", b"completion_id,sep=;"])
def test_a_header_with_the_delimiter_that_is_said_is_judged_by_its_columns(header: bytes) -> None:
    """Not as a file with another delimiter: it may hold both."""
    try:
        assert read(header + b"\n", "csv") == []
    except UnreadableFile as error:
        assert error.refusal.reason.startswith("the header has no column completion_id")  # noqa: PT017 -- or none


def test_the_name_says_the_delimiter_unless_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_bytes(ROWS.replace(b",", b"\t"))
    with ChangeFile.open(str(path)) as file:
        assert [item for _, item in file] == [CHANGE]
    path.write_bytes(ROWS)
    with ChangeFile.open(str(path), Reading(delimiter=",")) as file:
        assert [item for _, item in file] == [CHANGE]
    with pytest.raises(UnreadableFile, match="the cells are separated by ','"):
        ChangeFile.open(str(path))


class Dribble(io.BytesIO):
    """Input that comes in pieces of a few bytes."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(min(4, size or 4))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf\n[" + LINE + b"]",
        b"\n\n\n\n[" + LINE + b"]",
        b'\n{"completion_id": "c1",\n "metadata": {"grade": "A"}}',
    ],
)
def test_the_format_is_recognised_however_the_bytes_arrive(content: bytes) -> None:
    with ChangeFile.open("-", stdin=Dribble(content)) as file:
        assert file.form == "json"
        assert [item for _, item in file] == [CHANGE]
