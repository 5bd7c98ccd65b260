"""Values of JSON files: an array, or objects one after another, and what is said of one that is broken."""

import json
from collections.abc import Callable, Sequence

import pytest

from tests.changes.reading import read_bytes
from worker.changes import MetadataChange
from worker.changes.files import Refusal
from worker.changes.lines import CUT_LINE_BYTES, MAX_LINE_BYTES
from worker.changes.records import Record, records
from worker.changes.source import DamagedData

GOOD = b'{"completion_id": "c1", "metadata": {"grade": "A"}}'
CHANGE = MetadataChange("c1", {"grade": "A"})
NO_OBJECT = "not JSON: expecting an object"
NO_END = "not JSON: it has no end"
TOO_LONG = "the record is longer than 1 MiB"


def pieces_of(content: bytes, size: int, damage: str = "") -> Callable[[], bytes]:
    pieces = iter([content[start : start + size] for start in range(0, len(content), size)])

    def read() -> bytes:
        if piece := next(pieces, b""):
            return piece
        if damage:
            raise DamagedData(damage)
        return b""

    return read


def found(content: bytes, damage: str = "") -> Sequence[Record]:
    """The records, which are the same in whatever pieces the bytes come."""
    whole = list(records(pieces_of(content, max(1, len(content)), damage)))
    for size in (1, 7):
        assert list(records(pieces_of(content, size, damage))) == whole
    return whole


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b" \n,\r\n\t", []),
        (b"[]", []),
        (b"[{}]", [Record(1, 1, b"{}")]),
        (b"{}{}", [Record(1, 1, b"{}"), Record(2, 1, b"{}")]),
        (b"\n{\n}\n,\n[{\n},\n{}]", [Record(1, 2, b"{\n}"), Record(2, 5, b"{\n}"), Record(3, 7, b"{}")]),
        (b"[{}]\n[{}]", [Record(1, 1, b"{}"), Record(2, 2, b"{}")]),
        (b"[{}][{}]{}", [Record(1, 1, b"{}"), Record(2, 1, b"{}"), Record(3, 1, b"{}")]),
        (b'[[1, {"a": [2]}], []]', [Record(1, 1, b'[1, {"a": [2]}]'), Record(2, 1, b"[]")]),
        (rb'[{"}": "]\"{"}]', [Record(1, 1, rb'{"}": "]\"{"}')]),
        (b'{"a": {"b": {"c": {}}}}', [Record(1, 1, b'{"a": {"b": {"c": {}}}}')]),
        (
            b'[1, "a, b", nul\n,\n true]',
            [Record(1, 1, b"1"), Record(2, 1, b'"a, b"'), Record(3, 1, b"nul"), Record(4, 3, b"true")],
        ),
    ],
)
def test_every_value_has_its_number_its_line_and_its_own_text(content: bytes, expected: list[Record]) -> None:
    assert found(content) == expected


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"}", NO_OBJECT),
        (b'"a', NO_OBJECT),
        (b'{"a": "b', "not JSON: a string in line 2 has no end"),
        (b'{"a": ]', "not JSON: ']' closes what it does not open"),
        (b"[{]", "not JSON: ']' closes what it does not open"),
        (b"[}", "not JSON: '}' closes what it does not open"),
        (b"[" * 65 + b"]" * 65, "nested too deeply"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested too deeply"),
    ],
)
def test_a_broken_value_costs_its_first_line(broken: bytes, reason: str) -> None:
    content = b"[{}\n" + broken + b"\n{}]"
    assert found(content) == [Record(1, 1, b"{}"), Record(2, 2, broken, reason), Record(3, 3, b"{}")]


def test_a_value_may_be_64_deep() -> None:
    for deep in (b"[" * 64 + b"]" * 64, b'{"a":' * 64 + b"1" + b"}" * 64):
        assert found(b"[" + deep + b"]") == [Record(1, 1, deep)]


def test_a_bracket_that_closes_no_array_is_no_value() -> None:
    assert found(b"{}\n]\n{}") == [Record(1, 1, b"{}"), Record(2, 2, b"]", NO_OBJECT), Record(3, 3, b"{}")]


def test_byte_order_marks_between_values_are_blank() -> None:
    content = b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}"
    assert list(records(pieces_of(content, 100))) == [Record(1, 1, b"{}"), Record(2, 2, b"{}")]


def test_a_string_without_an_end_is_named_with_its_own_line() -> None:
    content = b'\n{"a":\n {"b":\n "c}\n}}\n{}'
    first, *others = found(content)
    assert first == Record(1, 2, b'{"a":', "not JSON: a string in line 4 has no end")
    assert others[-1] == Record(len(others) + 1, 6, b"{}")


@pytest.mark.parametrize("content", [b"{", b'{"a": 1', b'{"a": {}', b"{}\n{", b'{"a": "b'])
def test_a_value_that_the_end_of_the_file_cuts_has_no_end(content: bytes) -> None:
    *_, last = found(content)
    assert (last.raw, last.reason, last.cut) == (content.removeprefix(b"{}\n"), NO_END, False)


def test_an_array_without_an_end_is_named_with_the_line_of_its_start() -> None:
    assert found(b"\n\n[{},\n{}\n") == [
        Record(1, 3, b"{}"),
        Record(2, 4, b"{}"),
        Record(3, 5, b"", "the array that starts in line 3 has no end: the file was cut off"),
    ]


@pytest.mark.parametrize(
    ("content", "last"),
    [
        (b"[{},\n", Record(2, 2, b"", "damaged", cut=True)),
        (b"{}\n", Record(2, 2, b"", "damaged", cut=True)),
        (b'{}\n{"a": "b"', Record(2, 2, b'{"a": "b"', "damaged", cut=True)),
        (b'{}\n{"a":\n', Record(2, 2, b'{"a":\n', "damaged", cut=True)),
        (b"{}{" + b"1" * 5_000, Record(2, 1, b"{" + b"1" * (CUT_LINE_BYTES - 1), "damaged", cut=True)),
    ],
)
def test_damage_ends_the_file_with_what_was_read_of_the_last_value(content: bytes, last: Record) -> None:
    assert found(content, "damaged") == [Record(1, 1, b"{}"), last]


def filled(size: int) -> bytes:
    return b'{"a": "' + b"x" * (size - 9) + b'"}'


def test_a_value_of_a_mebibyte_is_read_and_a_longer_one_costs_its_line() -> None:
    longest, too_long = filled(MAX_LINE_BYTES), filled(MAX_LINE_BYTES + 1)
    nested = b'{"a": {"a": ' + longest[:-12] + b"}}"
    for start in (b"", b"{}\n"):
        content = start + b"\n".join([longest, too_long, b"{}", longest])
        whole = list(records(pieces_of(content, len(content))))
        assert list(records(pieces_of(content, 200_000))) == whole
        values = [(record.raw, record.reason, record.cut) for record in whole[bool(start) :]]
        assert values == [
            (longest, None, False),
            (too_long[:CUT_LINE_BYTES], TOO_LONG, True),
            (b"{}", None, False),
            (longest, None, False),
        ]
    assert [record.reason for record in records(pieces_of(nested, 300_000))] == [TOO_LONG]


def test_a_word_of_a_mebibyte_is_one_and_a_longer_one_costs_its_line() -> None:
    longest, too_long = b"1" * MAX_LINE_BYTES, b"1" * (MAX_LINE_BYTES + 1)
    for size in (100_000, 3 * MAX_LINE_BYTES):
        assert list(records(pieces_of(b"[" + longest + b",\n" + too_long + b"\n,2]", size))) == [
            Record(1, 1, longest),
            Record(2, 2, too_long[:CUT_LINE_BYTES], NO_OBJECT, cut=True),
            Record(3, 3, b"2"),
        ]


def test_a_change_of_a_json_file_is_numbered_and_a_refusal_names_record_and_line() -> None:
    content = b"[\n" + GOOD + b",\n1,\n" + b'{"completion_id": "c2"},\n' + GOOD + b"\n"

    first, number, incomplete, last, end = read_bytes(content, "json")

    assert [first, last] == [CHANGE, CHANGE]
    assert number == Refusal("<stdin>", 3, "the line must be a JSON object, not a number", b"1", record=2)
    assert str(number) == "<stdin>:3: record 2: the line must be a JSON object, not a number"
    assert incomplete == Refusal("<stdin>", 4, "the field metadata is missing", b'{"completion_id": "c2"}', record=3)
    assert end == Refusal(
        "<stdin>", 6, "the array that starts in line 1 has no end: the file was cut off", b"", record=5
    )


def test_a_broken_value_of_a_file_is_refused_and_the_next_one_is_read() -> None:
    too_long = b"[" + filled(MAX_LINE_BYTES + 1)
    assert read_bytes(b"[" + GOOD + b",\n}\n" + too_long + b"\n" + GOOD + b"]", "json") == [
        CHANGE,
        Refusal("<stdin>", 2, NO_OBJECT, b"}", record=2),
        Refusal("<stdin>", 3, TOO_LONG, too_long[:CUT_LINE_BYTES], cut=True, record=3),
        CHANGE,
    ]


def test_a_hint_on_one_value_is_that_of_a_line() -> None:
    (refusal,) = read_bytes(b'[{"id": "x", "metadata": {}}]', "json")
    assert isinstance(refusal, Refusal)
    assert refusal.hint == "--id-column id takes that field for the id"


def test_refused_lines_that_were_laid_out_anew_are_taken_as_they_were_repaired() -> None:
    entry = {"file": "a.jsonl", "line": 1, "reason": "x", "text": GOOD.decode()}
    content = json.dumps([entry, entry | {"text": '{"completion_id": "c2", "metadata": {}}'}], indent=2)
    assert read_bytes(content.encode(), "json", "replace") == [
        MetadataChange("c1", {"grade": "A"}, "replace"),
        MetadataChange("c2", {}, "replace"),
    ]


def given(*pieces: bytes) -> Callable[[], bytes]:
    """These pieces, and no end: nobody may ask for more."""
    left = iter(pieces)

    def read() -> bytes:
        piece = next(left, None)
        assert piece is not None, "more was read than the value needs"
        return piece

    return read


@pytest.mark.parametrize(
    ("pieces", "raw"),
    [
        ([b"[{}"], b"{}"),
        ([b"[[1]"], b"[1]"),
        ([b'{"a":{"b":{"c":1}}}'], b'{"a":{"b":{"c":1}}}'),
        ([b"[1,"], b"1"),
        ([b"[1]"], b"1"),
        ([b'["a",'], b'"a"'),
        ([b'"a', b"bc\n"], b'"abc'),
        ([b"}x", b"\n"], b"}x"),
        ([b'{"a": "b', b"c\n"], b'{"a": "bc'),
    ],
)
def test_a_value_is_told_as_soon_as_it_is_known(pieces: list[bytes], raw: bytes) -> None:
    assert next(records(given(*pieces))).raw == raw


def test_deep_values_behind_a_mebibyte_of_others_are_read() -> None:
    deep = b'{"a":{"b":{"c":1}}}'
    many = (filled(100_000) + b"\n") * 11
    *_, first, second = records(pieces_of(many + deep + deep, len(many) + len(deep) + 9))
    assert (first, second) == (Record(12, 12, deep), Record(13, 12, deep))


def test_a_value_without_an_end_of_a_mebibyte_has_no_end() -> None:
    (record,) = records(pieces_of(b"{" + b"1" * (MAX_LINE_BYTES - 1), MAX_LINE_BYTES))
    assert record.reason == NO_END


def test_a_broken_line_of_a_mebibyte_is_kept_whole_and_a_longer_one_is_cut() -> None:
    longest = b"}" + b"x" * (MAX_LINE_BYTES - 1)
    for size in (MAX_LINE_BYTES, 300_000):
        assert list(records(pieces_of(longest + b"\n" + longest + b"x\n{}", size))) == [
            Record(1, 1, longest, NO_OBJECT),
            Record(2, 2, longest[:CUT_LINE_BYTES], NO_OBJECT, cut=True),
            Record(3, 3, b"{}"),
        ]
    first, *_ = records(pieces_of(longest + b"x\n{}", MAX_LINE_BYTES))
    assert first == Record(1, 1, longest[:CUT_LINE_BYTES], NO_OBJECT, cut=True)


def test_a_word_whose_rest_comes_later_is_not_taken_for_whole() -> None:
    first, *_ = records(pieces_of(b"1" * (MAX_LINE_BYTES + 1) + b"\n2", MAX_LINE_BYTES))
    assert first == Record(1, 1, b"1" * CUT_LINE_BYTES, NO_OBJECT, cut=True)


def test_damage_after_a_word_leaves_the_word_and_ends_the_file() -> None:
    assert found(b"{}\n12", "damaged") == [
        Record(1, 1, b"{}"),
        Record(2, 2, b"12"),
        Record(3, 2, b"", "damaged", cut=True),
    ]
