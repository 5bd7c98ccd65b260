"""Files that consist of whole lines at any moment, with one writing pull."""

import gzip
import os
import stat
from pathlib import Path

import pytest

from worker.changes.files import ChangeFile
from worker.sync.lines import Csv, Form, JsonLines
from worker.sync.target import Target, Unusable, Unwritable

FORMS: dict[str, Form] = {".jsonl": JsonLines(), ".csv": Csv(("model",))}
IDS = [f"chatcmpl-{number}" for number in range(5)]
METADATA = {"né": 'a,b\n"c"\u2028', "": ""}


def _open(path: Path, **options: bool) -> Target:
    form = FORMS[path.name.removeprefix("x").removesuffix(".gz")]
    return Target.open(str(path), form, gzipped=path.name.endswith(".gz"), **options)


def _line(form: Form, completion_id: str) -> bytes:
    return form.line(completion_id, METADATA, {"model": "gpt"} if isinstance(form, Csv) else {})


async def _written(path: Path, ids: list[str], **options: bool) -> None:
    target = _open(path, **options)
    if options.get("resume"):
        target.take_up(lambda _: None)
    for each in ids:
        target.put(_line(target.form, each))
        await target.flush()
    await target.finish()
    target.close()


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.jsonl.gz", "x.csv.gz"])
async def test_a_file_that_is_cut_off_anywhere_is_gone_on_with(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    await _written(path, IDS)
    whole, text = path.read_bytes(), _bytes(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        target = _open(path, resume=True)
        met: list[str] = []
        target.take_up(met.append)
        assert met == IDS[: len(met)]
        assert (target.lines, list(target.behind)) == (len(met), met)
        for each in IDS[len(met) :]:
            target.put(_line(target.form, each))
        await target.finish()
        target.close()
        assert _bytes(path) == text, size


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.csv.gz"])
async def test_what_is_written_is_read_as_it_was(tmp_path: Path, name: str) -> None:
    from worker.changes.files import Reading  # noqa: PLC0415 -- here alone

    path = tmp_path / name
    await _written(path, IDS)
    with ChangeFile.open(str(path), Reading(ignore_unknown=True)) as file:
        found = [item for _, item in file]
    assert [(each.completion_id, dict(each.metadata), each.mode) for each in found] == [  # type: ignore[union-attr] # all are changes
        (each, METADATA, "replace") for each in IDS
    ]


async def test_a_file_that_is_there_is_left_alone_unless_something_else_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("mine")
    with pytest.raises(Unusable, match="--resume"):
        _open(path)
    path.write_text("mine\n")
    target = _open(path, resume=True)
    with pytest.raises(Unusable, match=r"x.jsonl:1: this line"):
        target.take_up(lambda _: None)
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("x.jsonl", b"mine, without an end of line"),
        ("x.csv", b"completion_id,grade"),
        ("x.jsonl.gz", b"no gzip at all"),
        ("x.jsonl.gz", gzip.compress(b"mine, without an end of line", mtime=0)),
        ("x.jsonl.gz", gzip.compress(b"mine, and cut off", mtime=1_700_000_000)[:20]),
    ],
)
async def test_foreign_content_is_not_dropped_as_an_unfinished_line(tmp_path: Path, name: str, held: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(held)
    target = _open(path, resume=True)
    with pytest.raises(Unusable, match="cannot be resumed"):
        target.take_up(lambda _: None)
    assert path.read_bytes() == held


@pytest.mark.parametrize("new", [None, "another's"])
async def test_lines_for_a_file_that_is_gone_are_not_taken_for_written(tmp_path: Path, new: str | None) -> None:
    path = tmp_path / "x.jsonl"
    target = _open(path)
    target.put(_line(target.form, IDS[0]))
    await target.flush()
    path.unlink()
    if new is not None:
        path.write_text(new)
    target.put(_line(target.form, IDS[1]))
    with pytest.raises(Unwritable, match="was deleted"):
        await target.finish()
    target.close()


async def test_an_old_file_stays_until_there_is_something_to_put_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old")
    target = _open(path, overwrite=True)
    target.put(_line(target.form, IDS[0]))
    assert path.read_text() == "old"
    target._buffer.clear()
    target.close()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.jsonl"]  # noqa: PTH208 -- what is hidden too
    await _written(path, IDS, overwrite=True)
    assert path.read_text().count("\n") == 5
    await _written(path, [], overwrite=True)
    assert path.read_text() == ""
    assert os.listdir(tmp_path) == ["x.jsonl"]  # noqa: PTH208 -- likewise


async def test_two_pulls_into_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    first = _open(path)
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(Unusable, match="another pull"):
            _open(path, **options)
    first.close()
    second = _open(path, overwrite=True)
    with pytest.raises(Unusable, match="another pull"):
        _open(path, resume=True)
    second.close()
    _open(path, resume=True).close()


async def test_a_pipe_gets_everything(tmp_path: Path) -> None:
    import asyncio  # noqa: PLC0415 -- here alone

    path = tmp_path / "x.jsonl"
    os.mkfifo(path)
    reading = asyncio.create_task(asyncio.to_thread(path.read_bytes))
    target = await asyncio.to_thread(_open, path)
    count = 30_000
    for number in range(count):
        target.put(_line(target.form, f"chatcmpl-{number}"))
        if target.is_full:
            await target.flush()
    await target.finish()
    target.close()
    assert (await reading).count(b"\n") == count


async def test_a_full_disk_is_said() -> None:
    target = Target.open("/dev/full", JsonLines(), gzipped=False)
    target.put(_line(target.form, IDS[0]))
    with pytest.raises(Unwritable, match="No space left"):
        await target.flush()
    target.close()


async def test_a_file_for_other_fields_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    await _written(path, IDS)
    with pytest.raises(Unusable, match="header"):
        Target.open(str(path), Csv(()), gzipped=False, resume=True).take_up(lambda _: None)
