"""Files as a whole: names, compression, damage, standard input, progress."""

import errno
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.changes.reading import gz, ids, items_of, read_bytes, read_file, refusals
from worker.changes import MetadataChange
from worker.changes.files import ChangeFile, Reading, Refusal, UnreadableFile, check_name

JSONL = b"".join(b'{"completion_id": "c%d", "metadata": {"grade": "good"}}\n' % number for number in range(3))
CSV = b"completion_id,grade\nc0,good\nc1,good\nc2,good\n"
CHANGES = [MetadataChange(f"c{number}", {"grade": "good"}) for number in range(3)]


def incompressible_lines(count: int) -> bytes:
    """Lines that stay about as long when compressed, so that damage meets the middle of them."""
    return b"".join(
        b'{"completion_id": "c%d", "metadata": {"noise": "%s"}}\n' % (number, os.urandom(200).hex().encode())
        for number in range(count)
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL),
        ("a.ndjson", JSONL),
        ("a.csv", CSV),
        ("a.jsonl.gz", gz(JSONL)),
        ("a.ndjson.gz", gz(JSONL)),
        ("a.csv.gz", gz(CSV)),
        ("A.CSV.GZ", gz(CSV)),
        ("a.b.JSONL", JSONL),
        (".jsonl", JSONL),
        ("compressed-all-the-same.jsonl", gz(JSONL)),
        ("two-members.jsonl.gz", gz(JSONL[:70]) + gz(JSONL[70:])),
    ],
)
def test_the_name_says_how_a_file_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert read_file(tmp_path / name) == CHANGES


def test_a_format_that_is_given_goes_before_the_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(CSV)

    with ChangeFile.open(str(tmp_path / "rows.jsonl"), Reading(format="csv")) as file:
        assert items_of(file) == CHANGES


def refusal_of(path: Path | str) -> Refusal:
    with pytest.raises(UnreadableFile) as caught:
        ChangeFile.open(str(path))
    assert str(caught.value) == str(caught.value.refusal)
    return caught.value.refusal


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labels.txt", JSONL, "the name must end in .jsonl, .ndjson, .json, .csv, .tsv, each also with .gz"),
        ("labels.txt", JSONL, "unknown suffix"),
        ("labels.txt", JSONL, "for any other name say --format jsonl or json or csv"),
        ("labels", JSONL, "unknown suffix"),
        ("labels.gz", gz(JSONL), "unknown suffix"),
        ("labels.jsonl.gz", JSONL, "not gzip data, although the name ends in .gz"),
        ("labels.jsonl.gz", b"\x1f", "not gzip data, although the name ends in .gz"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_as_a_whole(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)

    refusal = refusal_of(tmp_path / name)

    assert refusal.line == 0
    assert reason in refusal.reason
    assert str(refusal) == f"{tmp_path / name}: {refusal.reason}"


def test_a_missing_file_a_directory_and_an_impossible_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "directory.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")

    assert refusal_of(tmp_path / "missing.jsonl").reason == "there is no such file"
    assert refusal_of(tmp_path / "directory.jsonl").reason == "this is a directory, not a file"
    assert refusal_of(tmp_path / "loop.jsonl").reason == "too many levels of symbolic links"
    assert "null" in refusal_of("a\0.jsonl").reason  # a byte or a character, as the release of Python says it


def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(JSONL)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # nothing is forbidden to root
        os.seteuid(65534)
    try:
        refusal = refusal_of(path)
    finally:
        os.seteuid(user)

    assert refusal == Refusal(str(path), 0, "no permission to read it")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.csv", b""),
        ("a.csv.gz", b""),
        ("a.json", b" "),
        ("a.json", b"[]"),
        ("a.csv", b"\n \n"),
        ("a.csv.gz", gz(b"")),
        ("a.csv", b"completion_id,grade\n"),
        ("a.csv", b"completion_id"),
        ("a.jsonl", b"\n \r\n"),
        ("a.jsonl", b"\xef\xbb\xbf"),
        ("a.jsonl.gz", gz(b"")),
    ],
)
def test_a_file_without_any_change_yields_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    assert read_file(tmp_path / name) == []


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
def test_gzip_data_that_was_cut_off_yields_the_lines_before_and_one_refusal(tmp_path: Path, name: str) -> None:
    content = b"completion_id,grade\n" + os.urandom(20_000).hex(",").replace(",", ",x\n").encode() + b"\n"
    if name == "a.jsonl.gz":
        content = incompressible_lines(2_000)
    path = tmp_path / name
    compressed = gz(content)
    path.write_bytes(compressed[: len(compressed) // 2])

    items = read_file(path)

    *changes, refusal = items
    assert isinstance(refusal, Refusal)
    first_line = 1 if name == "a.jsonl.gz" else 2
    assert refusal.reason == "the gzip data ends too early: the file was cut off"
    assert refusal.line == len(changes) + first_line
    assert refusal.cut
    assert content.split(b"\n")[refusal.line - 1].startswith(refusal.raw)
    assert len(changes) > content.count(b"\n") // 3
    assert all(isinstance(item, MetadataChange) for item in changes)


def test_gzip_data_that_is_damaged_in_the_middle_yields_the_lines_before_and_one_refusal(tmp_path: Path) -> None:
    first, second = incompressible_lines(2_000), incompressible_lines(2_000)
    damaged = bytearray(gz(second))
    damaged[10:200] = b"\xff" * 190
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gz(first) + damaged)

    items = read_file(path)

    assert len(items) == 2_001
    assert refusals(items) == [(2_001, "the gzip data is damaged")]


def test_a_last_line_that_the_checksum_does_not_vouch_for_is_refused(tmp_path: Path) -> None:
    compressed = bytearray(gz(JSONL.rstrip()))
    compressed[-8] ^= 0xFF  # in the checksum, RFC 1952, section 2.3
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(compressed)

    items = read_file(path)

    assert items[:2] == CHANGES[:2]
    assert refusals(items) == [(3, "the gzip data is damaged")]


def test_a_damaged_header_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gz(CSV)[:12])

    refusal = refusal_of(path)

    assert str(refusal) == f"{path}:1: the gzip data ends too early: the file was cut off"


def test_a_row_with_an_open_quote_at_the_damage_is_not_taken(tmp_path: Path) -> None:
    compressed = bytearray(gz(b'completion_id,grade\nc0,good\nc1,"good'))
    compressed[-8] ^= 0xFF
    path = tmp_path / "a.csv.gz"
    path.write_bytes(compressed)

    items = read_file(path)

    assert ids(items) == ["c0"]
    assert refusals(items) == [(3, "the gzip data is damaged")]


def test_progress_is_counted_in_bytes_of_the_file_as_it_lies_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gz(incompressible_lines(4_000)))

    with ChangeFile.open(str(path)) as file:
        items = iter(file)
        next(items)
        early = file.bytes_read
        assert sum(1 for _ in items) == 3_999

        assert file.size_bytes == path.stat().st_size
        assert 0 < early < file.size_bytes
        assert file.bytes_read == file.size_bytes
        assert repr(file) == f"<ChangeFile {path} [{file.size_bytes} of {file.size_bytes} bytes]>"


def test_standard_input_is_jsonl_unless_told_and_is_left_open() -> None:
    stdin = io.BytesIO(JSONL)

    with ChangeFile.open("-", stdin=stdin) as file:
        assert file.source == "<stdin>"
        assert file.size_bytes is None
        assert items_of(file) == CHANGES
        assert file.bytes_read == len(JSONL)

    assert not stdin.closed
    assert read_bytes(CSV, "csv") == CHANGES


@pytest.mark.parametrize("content", [JSONL, gz(JSONL)])
def test_standard_input_of_a_process_is_read_compressed_or_not(content: bytes) -> None:
    program = (
        "from worker.changes.files import ChangeFile\nfor item in ChangeFile.open('-'): print(item[1].completion_id)"
    )

    done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True, timeout=60)

    assert done.stdout.split() == [b"c0", b"c1", b"c2"]


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        ("<&-", "<stdin>: standard input is closed"),
        ("</dev/null", ""),
    ],
)
def test_standard_input_that_cannot_be_read_is_refused(redirection: str, message: str) -> None:
    program = (
        "from worker.changes.files import ChangeFile, UnreadableFile\n"
        "try: ChangeFile.open('-')\n"
        "except UnreadableFile as error: print(error)\n"
    )

    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == (message and f"{message}\n", "")


class FailingStream(io.BytesIO):
    """A disk or a connection that fails after some bytes."""

    def read1(self, size: int | None = -1) -> bytes:
        if data := super().read1(size):
            return data
        raise OSError(errno.EIO, "Input/output error")


def test_input_that_fails_while_it_is_read_yields_the_lines_before_and_one_refusal() -> None:
    with ChangeFile.open("-", stdin=FailingStream(JSONL + JSONL[:20])) as file:
        items = items_of(file)

    assert items[:-1] == CHANGES
    assert refusals(items) == [(4, "reading failed: input/output error")]
    assert items[-1] == Refusal("<stdin>", 4, "reading failed: input/output error", JSONL[:20], cut=True)


def test_input_that_fails_at_once_is_refused_as_a_whole() -> None:
    with pytest.raises(UnreadableFile, match=r"^<stdin>: input/output error$"):
        ChangeFile.open("-", stdin=FailingStream())


def test_a_producer_that_pauses_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "wb", buffering=0) as producer:
        producer.write(JSONL[:1])
        producer.write(JSONL[1:])

        with ChangeFile.open("-", stdin=stdin) as file:
            items = iter(file)
            assert [next(items)[1], next(items)[1], next(items)[1]] == CHANGES

            producer.write(JSONL[:-1])
            assert next(items)[1] == CHANGES[0]


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL)

    with ChangeFile.open(str(path)) as file:
        assert items_of(file) == CHANGES
        assert items_of(file) == []


@pytest.mark.parametrize("path", ["labels.jsonl", "labels.CSV.gz", "labels.tsv", "-"])
def test_a_name_is_checked_before_there_is_such_a_file(path: str) -> None:
    check_name(path, Reading())
    with pytest.raises(UnreadableFile) as caught:
        check_name(path, Reading(as_of="mtime"))
    name = "<stdin>" if path == "-" else path
    assert caught.value.refusal.line == 0
    assert str(caught.value) == f"{name}: only a regular file tells when it was last changed: say --as-of and the time"


def test_a_name_that_says_no_format_needs_one_to_be_said() -> None:
    with pytest.raises(UnreadableFile) as caught:
        check_name("labels.txt", Reading())
    assert str(caught.value) == (
        "labels.txt: unknown suffix: the name must end in .jsonl, .ndjson, .json, .csv, .tsv, each also with .gz; "
        "for any other name say --format jsonl or json or csv"
    )
    check_name("labels.txt", Reading(format="csv"))


def test_a_file_of_another_kind_is_named_by_its_content_where_its_name_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(CSV)
    assert refusal_of(tmp_path / "labels") == Refusal(
        str(tmp_path / "labels"), 0, "this looks like CSV, not JSON: say --format csv"
    )


def test_what_was_read_of_a_file_is_read_again_and_no_more_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL * 2_000)  # more than one piece
    with ChangeFile.open(str(path)) as file:
        assert len(items_of(file)) == 6_000
        kept = file.kept()
    assert kept is not None
    with path.open("ab") as more:
        more.write(JSONL)
    for _ in range(2):
        with ChangeFile.open(str(path), stretch=kept) as again:
            assert items_of(again) == CHANGES * 2_000
    os.close(kept.descriptor)  # which is still open: its owner closes it


def test_standard_input_that_is_a_file_is_read_again_from_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"not for us\n" + JSONL * 2_000)
    with path.open("rb", buffering=0) as stdin:
        os.lseek(stdin.fileno(), len(b"not for us\n"), os.SEEK_SET)
        monkeypatch.setattr(sys, "stdin", stdin)
        with ChangeFile.open("-") as file:
            first = next(iter(file))[1]
            assert first == CHANGES[0]
            kept = file.kept()
        assert kept is not None
        assert kept.end - kept.start == file.bytes_read < len(JSONL) * 2_000
        with ChangeFile.open("-", stretch=kept) as again:
            assert next(iter(again))[1] == first
        os.close(kept.descriptor)


def test_input_that_is_no_file_cannot_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, (tmp_path / "a.jsonl").open("rb") as opened_by_the_caller:
        for stdin in (io.BytesIO(JSONL), pipe, opened_by_the_caller):
            with ChangeFile.open("-", stdin=stdin) as file:
                assert file.kept() is None


def test_a_named_pipe_is_read_as_its_writer_writes_however_late(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in (JSONL[:1], JSONL[1:60], JSONL[60:]):
                pipe.write(piece)

    writer = threading.Timer(0.05, write)
    writer.start()
    with ChangeFile.open(str(path)) as file:
        assert items_of(file) == CHANGES
        assert (file.size_bytes, file.bytes_read, file.text_bytes) == (None, len(JSONL), len(JSONL))
        assert file.kept() is None
    writer.join()


def test_every_piece_is_copied_as_it_was_read(tmp_path: Path) -> None:
    copied: list[bytes] = []
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gz(JSONL))
    with ChangeFile.open(str(path), copy=copied.append) as file:
        assert items_of(file) == CHANGES
        assert (file.bytes_read, file.text_bytes) == (path.stat().st_size, len(JSONL))
    assert b"".join(copied) == path.read_bytes()


def test_nothing_of_a_file_stays_open_whether_it_was_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(JSONL)
    (tmp_path / "bad.jsonl.gz").write_bytes(JSONL)
    (tmp_path / "directory.jsonl").mkdir()
    before = len(list(Path("/dev/fd").iterdir()))
    with ChangeFile.open(str(tmp_path / "good.jsonl")) as file:
        next(iter(file))
    for name in ("bad.jsonl.gz", "directory.jsonl"):
        with pytest.raises(UnreadableFile):
            ChangeFile.open(str(tmp_path / name))
    assert len(list(Path("/dev/fd").iterdir())) == before
    file.close()  # once more does no harm


def test_standard_input_that_is_closed_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal_of("-") == Refusal("<stdin>", 0, "standard input is closed")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(JSONL)))
    with ChangeFile.open("-") as file:
        assert items_of(file) == CHANGES


def test_a_stream_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    with (tmp_path / "a.jsonl").open("rb", buffering=0) as stdin, ChangeFile.open("-", stdin=stdin) as file:
        assert items_of(file) == CHANGES


class OneByteFirst(io.BytesIO):
    """Input whose first byte comes alone."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(1 if self.tell() == 0 else size)


def test_compressed_data_is_recognised_however_its_first_bytes_arrive() -> None:
    with ChangeFile.open("-", stdin=OneByteFirst(gz(JSONL))) as file:
        assert items_of(file) == CHANGES


def test_what_is_not_compressed_although_its_name_says_so_is_told_in_these_words(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(JSONL)
    assert refusal_of(tmp_path / "a.jsonl.gz").reason == "not gzip data, although the name ends in .gz"


class MarkFirst(io.BytesIO):
    """A stream whose first piece is a byte order mark and an empty line."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(4 if self.tell() == 0 else size)


def test_a_byte_order_mark_and_an_empty_line_are_not_taken_for_the_start_of_the_text() -> None:
    array = b'\xef\xbb\xbf\n[{"completion_id": "c1", "metadata": {"a": "b"}}]'
    with ChangeFile.open("-", stdin=MarkFirst(array)) as file:
        assert items_of(file) == [MetadataChange("c1", {"a": "b"})]
