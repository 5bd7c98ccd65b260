"""Any bytes: the file is refused as a whole, or each line is a change or refused by its number, once."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.changes.reading import unhurried
from tests.changes.test_memory import MEBIBYTE, at_most
from worker.changes import MetadataChange
from worker.changes.files import ChangeFile, Format, Numbered, Reading, Refusal, UnreadableFile
from worker.changes.records import records

GOOD = b'{"completion_id": "c1", "metadata": {"grade": "A"}}'
PIECES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [
            *(GOOD, GOOD + b"\n", json.dumps(json.loads(GOOD), indent=1).encode(), GOOD[:20], GOOD[20:], b"[", b"]"),
            *(b"{", b"}", b'"', b"\\", b",", b"\n", b"\r\n", b"\r", b"completion_id,grade\n", b"c1,A\n", b";", b"\t"),
            *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04", b"\0", b"nan,", b"1", b"null"),
        ]
    ),
)
CONTENT = st.lists(PIECES, max_size=30).map(b"".join)


def read(content: bytes, form: Format | None, name: str) -> list[Numbered] | None:
    try:
        with ChangeFile.open(name, Reading(format=form), stdin=io.BytesIO(content)) as file:
            return list(file)
    except UnreadableFile:
        return None


@pytest.mark.parametrize("form", [None, "jsonl", "json", "csv"])
@unhurried
@given(content=CONTENT)
def test_any_bytes_are_refused_as_a_whole_or_line_by_line(form: Format | None, content: bytes) -> None:
    found = read(content, form, "-")

    if found is None:
        return
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    for number, item in found:
        assert item is None or isinstance(item, MetadataChange | Refusal)
        if isinstance(item, Refusal):
            assert number == (item.record or item.line)
            assert item.reason


@unhurried
@given(
    objects=st.lists(
        st.sampled_from([GOOD, b'{"completion_id": "c2", "metadata": {"a": "]},{[\\"\\\\"}}']), min_size=1
    ),
    junk=st.lists(st.sampled_from([b"1", b'"x"', b'{"a": [[1]]}', b"null", b"[1]", b"{}"])),
    between=st.sampled_from([b",", b",\n", b" ,\r\n ", b"\n,"]),
    data=st.data(),
)
def test_every_value_of_an_array_is_one_record_however_it_is_laid_out(
    objects: list[bytes], junk: list[bytes], between: bytes, data: st.DataObject
) -> None:
    values = data.draw(st.permutations([*objects, *junk]))
    content = b"[" + between.join(values) + b"]"
    size = data.draw(st.integers(1, 9))
    pieces = iter([content[start : start + size] for start in range(0, len(content), size)])

    found = list(records(lambda: next(pieces, b"")))

    assert [record.raw.strip() for record in found] == values
    assert [record.number for record in found] == list(range(1, len(values) + 1))
    assert all(record.reason is None for record in found)


@unhurried
@given(broken=st.sampled_from([b'{"a": "x', b'{"a', b"{", b'"', b"}", b'{"a": {', b"x]y", b"[[" * 40]), data=st.data())
def test_a_broken_value_costs_the_lines_it_stands_on_and_no_other(broken: bytes, data: st.DataObject) -> None:
    before, after = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    content = b"[\n" + (GOOD + b",\n") * before + broken + b"\n" + (GOOD + b",\n") * after + b"]\n"

    found = read(content, "json", "-")

    assert found is not None
    changes = [number for number, item in found if isinstance(item, MetadataChange)]
    refused = [item.line for _, item in found if isinstance(item, Refusal)]
    assert len(changes) == before + after
    assert before + 2 in refused


def test_a_long_array_on_one_line_is_read_as_it_comes_and_takes_little_memory() -> None:
    pieces = iter([b"[", *[(GOOD + b", ") * 2_000] * 20, GOOD, b"]"])

    with at_most(4 * MEBIBYTE):
        count = sum(record.reason is None for record in records(lambda: next(pieces, b"")))

    assert count == 40_001


@pytest.mark.parametrize("broken", [b'{"a": "', b'{"a": ', b'"', b"x", b"["])
def test_a_record_of_100_mb_takes_little_memory_and_costs_its_line(broken: bytes) -> None:
    pieces = iter([b"[" + broken, *[b"x" * 250_000] * 400, b"\n" + GOOD, b"]"])

    with at_most(8 * MEBIBYTE):
        found = list(records(lambda: next(pieces, b"")))

    assert [record.raw for record in found if record.reason is None] == [GOOD]
    assert found[0].cut
