"""Lines of JSON: valid changes, and the messages for other lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.changes.reading import SECRET, ids, named, read_bytes, refusals, unhurried
from worker.changes import InvalidChange, MetadataChange, Mode, jsonl
from worker.changes.files import Reading, Refusal
from worker.changes.jsonl import line_parser, parse_slowly
from worker.changes.lines import MAX_LINE_BYTES, CutLine, lines

GOOD = b'{"completion_id": "chatcmpl-1", "metadata": {"grade": "good"}}'
CHANGE = MetadataChange("chatcmpl-1", {"grade": "good"})


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (GOOD, CHANGE),
        (GOOD + b"\r", CHANGE),
        (b" \t" + GOOD + b" ", CHANGE),
        (rb'{"completion_id": "chatcmpl-1", "metadata": {"gr\u0061de": "good"}}', CHANGE),
        (
            b'{"change_id":"c1","mode":"replace","metadata":{"a":"b"},"completion_id":"x"}',
            MetadataChange("x", {"a": "b"}, "replace", "c1"),
        ),
        (b'{"completion_id":"x","metadata":{"a":null},"change_id":null}', MetadataChange("x", {"a": None})),
        (b'{"completion_id":"x","metadata":{}}', MetadataChange("x", {})),
        (
            '{"completion_id":"x","metadata":{"größe":"10 µm {\U0001f600}"}}'.encode(),
            MetadataChange("x", {"größe": "10 µm {\U0001f600}"}),
        ),
        (rb'{"completion_id":"x","metadata":{"a":"\"\ud83d\ude00\n"}}', MetadataChange("x", {"a": '"\U0001f600\n'})),
    ],
)
def test_a_good_line_is_a_change(line: bytes, change: MetadataChange) -> None:
    assert read_bytes(line) == [change]


def test_the_mode_that_was_asked_for_is_of_lines_that_name_none() -> None:
    named = b'{"completion_id":"x","metadata":{},"mode":"merge"}'

    modes = [item.mode for item in read_bytes(GOOD + b"\n" + named, mode="replace") if isinstance(item, MetadataChange)]

    assert modes == ["replace", "merge"]


def line_with(**fields: object) -> bytes:
    return json.dumps({"completion_id": "x", "metadata": {"grade": SECRET}, **fields}).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"grade", "not JSON: expecting value at column 1"),
        (GOOD[:-1], "not JSON: expecting ',' delimiter at column 62"),
        (GOOD + b",", "not JSON: extra data at column 63"),
        (b'{"completion_id": "x', "not JSON: unterminated string at column 19"),
        (b'{"completion_id": "x\ty"}', "not JSON: invalid control character at column 21"),
        (rb'{"completion_id": "\x"}', r"not JSON: invalid \escape"),
        (b"{'completion_id': 'x'}", "not JSON: expecting property name enclosed in double quotes at column 2"),
        (b"\xef\xbb\xbf" + GOOD, "the line starts with a byte order mark, as where files were joined: take it out"),
        (b"[" + GOOD + b"]", "the line must be a JSON object, not an array"),
        (b'"chatcmpl-1"', "the line must be a JSON object, not a string"),
        (b"null", "the line must be a JSON object, not null"),
        (b"9" * 10_000, "the line must be a JSON object, not a number"),
        (b'{"metadata": {}}', "the field completion_id is missing"),
        (b'{"completion_id": "x"}', "the field metadata is missing"),
        (b"{}", "the field completion_id is missing"),
        (
            line_with(labels={"a": SECRET}),
            "unknown field 'labels'; the fields are completion_id, metadata, mode, change_id",
        ),
        (line_with(completion_id=7), "completion_id must be a string, not a number"),
        (line_with(completion_id="a/../b"), "completion_id 'a/../b' is not one"),
        (line_with(completion_id="a" * 257), "completion_id 'aaa"),
        (line_with(metadata=[SECRET]), "metadata must be an object of strings, not an array"),
        (line_with(metadata=None), "metadata must be an object of strings, not null"),
        (line_with(metadata={"grade": 5}), "the value of metadata key 'grade' must be a string, not a number"),
        (line_with(metadata={"grade": {"a": SECRET}}), "'grade' must be a string, not an object"),
        (line_with(metadata={"k" * 65: SECRET}), "has 65 characters, more than 64"),
        (line_with(metadata={"grade": SECRET * 50}), "'grade' has 600 characters, more than 512"),
        (line_with(metadata={f"k{n}": SECRET for n in range(17)}), "metadata sets 17 keys, more than 16"),
        (line_with(metadata={"grade": None}, mode="replace"), "null, which has no meaning in mode replace"),
        (line_with(mode="append"), "mode must be one of merge, replace, not 'append'"),
        (line_with(mode=None), "mode must be a string, not null"),
        (line_with(change_id=""), "change_id must have 1 to 256 characters, not 0"),
        (line_with(change_id=7), "change_id must be a string, not a number"),
        (b'{"completion_id":"x","completion_id":"y","metadata":{}}', "duplicate key 'completion_id'"),
        (b'{"completion_id":"x","metadata":{"a":"1"},"metadata":{"a":"1"}}', "duplicate key 'metadata'"),
        (b'{"completion_id":"x","metadata":{},"mode":"merge","mode":"merge"}', "duplicate key 'mode'"),
        (b'{"completion_id":"x","metadata":{},"change_id":null,"change_id":null}', "duplicate key 'change_id'"),
        (b'{"completion_id":"x","metadata":{"a":"s3cret-value","a":"s3cret-value"}}', "duplicate key 'a'"),
        (b'{"completion_id":"x","metadata":{"a":null,"a":"s3cret-value"}}', "duplicate key 'a'"),
        (rb'{"completion_id":"x","metadata":{"a":"s3cret-value","\u0061":"b"}}', "duplicate key 'a'"),
        (b'{"completion_id":"x","metadata":{"a":"\xff"}}', "the line is not UTF-8: byte 39 is invalid"),
        (b'{"completion_id":"x","metadata":{"a":"\xed\xa0\x80"}}', "the line is not UTF-8: byte 39 is invalid"),
        (b'{"completion_id":"x","metadata":{"a":"s3cret-value\0"}}', "the line holds a NUL, as byte 51"),
        (b"\0", "the line holds a NUL, as byte 1"),
        (GOOD.decode().encode("utf-16-le"), "the line holds a NUL, as byte 2"),
        (line_with(metadata={"a": "\0"}), "the value of metadata key 'a' holds a NUL"),
        (line_with(metadata={"a": "\ud800"}), "the value of metadata key 'a' holds a NUL or half a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"metadata":' * 50_000, "nested too deeply"),
        (b'{"completion_id":"x","metadata":{"a":' + b"1" * 100_000 + b"}}", "must be a string, not a number"),
        (b'{"completion_id":"x","metadata":{"a":1e999999}}', "must be a string, not a number"),
        (b'{"completion_id":"x","metadata":{"a":NaN}}', "not JSON: NaN is no JSON number"),
        (b'{"completion_id":"x","metadata":{"a":-Infinity}}', "not JSON: -Infinity is no JSON number"),
        (b"x" * (MAX_LINE_BYTES + 1), "the line is longer than 1 MiB"),
    ],
    ids=named,
)
def test_a_bad_line_is_named_with_its_number_and_reason_and_the_others_go_in(line: bytes, reason: str) -> None:
    items = read_bytes(b"\n".join([GOOD, b"", line, GOOD]))

    assert len(items) == 3
    assert [items[0], items[2]] == [CHANGE, CHANGE]
    refusal = items[1]
    assert isinstance(refusal, Refusal)
    assert refusal.line == 3
    assert reason in refusal.reason
    assert str(refusal) == f"<stdin>:3: {refusal.reason}"
    assert SECRET not in f"{refusal} {refusal!r}"
    assert refusal.raw == line[:4096] if refusal.cut else refusal.raw == line


def test_blank_lines_are_skipped_and_counted() -> None:
    items = read_bytes(b"\n \r\n\t\n" + GOOD + b"\r\n\n" + b"bad\n\n")

    assert items[0] == CHANGE
    assert [line for line, _ in refusals(items)] == [6]


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_line() -> None:
    assert read_bytes(b"\xef\xbb\xbf" + GOOD) == [CHANGE]


def test_a_line_of_the_greatest_length_is_read() -> None:
    line = GOOD + b" " * (MAX_LINE_BYTES - len(GOOD))

    assert read_bytes(line + b"\n" + line) == [CHANGE, CHANGE]


def test_the_end_of_a_line_that_is_too_long_is_not_taken_for_a_line() -> None:
    items = read_bytes(b" " * (3 * MAX_LINE_BYTES) + GOOD + b"\n" + GOOD)

    assert [line for line, _ in refusals(items)] == [1]
    assert ids(items) == ["chatcmpl-1"]


WHOLE_LINES = st.sampled_from([GOOD, GOOD + b"\r", b"", b" ", b"{}", b"\xef\xbb\xbf"])


@unhurried
@given(content=st.lists(st.one_of(st.binary(max_size=40), WHOLE_LINES)).map(b"\n".join))
def test_every_line_that_is_not_blank_yields_one_item_for_any_bytes(content: bytes) -> None:
    content = GOOD + b"\n" + content  # a byte order mark is not at the start any more
    expected = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]

    items = read_bytes(content)

    assert len(items) == len(expected)
    for item, number in zip(items, expected, strict=True):
        assert item == CHANGE or (isinstance(item, Refusal) and item.line == number)


STRINGS = [
    '"a"',
    '"b"',
    '""',
    r'"\u0061"',
    r'"x\"y"',
    r'"\\"',
    r'"\/"',
    r'"\u0000"',
    r'"\ud800"',
    r'"\ud83d\ude00"',
    '"ü"',
]
TEXTS = st.sampled_from([*STRINGS, '"merge"', '"replace"', "null", "{}", "1", ""])
NAMES = st.sampled_from(['"completion_id"', '"metadata"', '"mode"', '"change_id"', '"a"', r'"\u0061"'])


def objects(values: st.SearchStrategy[str], names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(names, values).map(": ".join)
    return st.lists(pairs, max_size=5).map(lambda several: "{" + ", ".join(several) + "}")


@unhurried
@given(
    line=st.one_of(
        objects(st.one_of(TEXTS, objects(TEXTS, TEXTS)), NAMES),
        objects(TEXTS, TEXTS).map('{{"completion_id": "a", "metadata": {}}}'.format),
    ),
    mode=st.sampled_from(["merge", "replace"]),
)
def test_the_fast_way_reads_a_line_as_the_thorough_one_does(line: str, mode: Mode) -> None:
    def outcome_of(parse: object) -> object:
        assert callable(parse)
        try:
            return parse(line.encode())
        except InvalidChange as error:
            return str(error)

    reading = Reading(mode)
    assert outcome_of(line_parser(reading)) == outcome_of(lambda given: parse_slowly(given, reading))


@unhurried
@given(content=st.text("a\n\r", max_size=60).map(str.encode), size=st.integers(1, 7))
def test_lines_are_the_same_however_the_bytes_arrive(content: bytes, size: int) -> None:
    pieces = iter([content[start : start + size] for start in range(0, len(content), size)])

    found = list(lines(lambda: next(pieces, b"")))

    expected = content.split(b"\n")
    assert found == (expected if expected[-1] else expected[:-1])


def test_a_line_that_is_too_long_is_cut_however_the_bytes_arrive() -> None:
    pieces = iter([b"x" * 1000] * 1100 + [b"tail\nnext"])

    assert list(lines(lambda: next(pieces, b""))) == [CutLine(b"x" * 4096, "the line is longer than 1 MiB"), b"next"]


def test_unknown_fields_are_skipped_on_request() -> None:
    line = b'{"completion_id":"x","metadata":{"a":"b"},"model":"gpt","usage":{"total":[1,2.5]},"messages":null}'
    assert read_bytes(line, ignore_unknown=True) == [MetadataChange("x", {"a": "b"})]
    for refused, ignore_unknown, reason in (
        (line, False, "unknown field 'model'"),
        (b'{"completion_id":"x","metadata":{"a":1},"model":"gpt"}', True, "must be a string"),
    ):
        (refusal,) = read_bytes(refused, ignore_unknown=ignore_unknown)
        assert isinstance(refusal, Refusal)
        assert reason in refusal.reason


@pytest.mark.parametrize("text", ["true", "false", "5", "-0", "1.50", "1e3", "12345678901234567890", "1" * 500])
def test_numbers_and_booleans_become_their_own_text_on_request(text: str) -> None:
    line = b'{"completion_id":"x","metadata":{"a":%b,"b":"c","d":null}}' % text.encode()
    assert read_bytes(line, coerce=True) == [MetadataChange("x", {"a": text, "b": "c", "d": None})]
    assert read_bytes(line.replace(b'"c"', rb'"\u0063"'), coerce=True) == read_bytes(line, coerce=True)
    (refusal,) = read_bytes(line)
    assert isinstance(refusal, Refusal)
    assert refusal.hint == "--coerce writes numbers and booleans as text, as JSON has them"


@pytest.mark.parametrize("value", [b"[1]", b'{"a":1}'])
def test_arrays_and_objects_are_no_text_even_on_request(value: bytes) -> None:
    for coerce in (True, False):
        (refusal,) = read_bytes(b'{"completion_id":"x","metadata":{"a":%b}}' % value, coerce=coerce)
        assert isinstance(refusal, Refusal)
        assert refusal.hint == ""


def test_the_id_may_be_in_a_field_of_another_name() -> None:
    good, bad = b'{"id":"x","metadata":{"a":"b"}}', b'{"id":"x","metadata":{"a":"b"},"completion_id":"y"}'
    for line in (good, good.replace(b'"b"', rb'"\u0062"')):
        assert read_bytes(line, id_column="id") == [MetadataChange("x", {"a": "b"})]
    assert refusals(read_bytes(bad, id_column="id")) == [
        (1, "unknown field 'completion_id'; the fields are id, metadata, mode, change_id, as_of")
    ]
    assert refusals(read_bytes(b'{"metadata":{}}', id_column="id")) == [(1, "the field id is missing")]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (b'{"id":"x","metadata":{}}', "--id-column id takes that field for the id"),
        (b'{"Completion-ID":"x","metadata":{}}', "--id-column Completion-ID takes that field for the id"),
        (b'{"id":"x","metadata":{},"completion_id":"y"}', ""),
        (b'{"ident":"x","metadata":{}}', ""),
    ],
)
def test_a_field_that_may_hold_the_id_is_named_with_the_flag_for_it(line: bytes, hint: str) -> None:
    (refusal,) = read_bytes(line)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("unknown field ")
    assert refusal.hint == hint


def test_metadata_in_a_string_is_no_object_and_what_looks_like_one_is_named() -> None:
    json_text = read_bytes(line_with(metadata=' {"a": "b"}'))
    assert refusals(json_text) == [
        (1, "metadata is JSON text within a string: write the object itself, without quotes around it")
    ]
    assert refusals(read_bytes(line_with(metadata="a{"))) == [
        (1, "metadata must be an object of strings, not a string")
    ]


def test_a_position_in_a_value_over_several_lines_names_the_line() -> None:
    content = b'[{"completion_id": "x",\n\n "metadata": oops}]'
    assert refusals(read_bytes(content, "json")) == [(1, "not JSON: expecting value at column 14 of its line 3")]


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"metadata":' * 50_000])
def test_a_line_that_is_nested_too_deeply_is_refused_in_these_words(line: bytes) -> None:
    assert refusals(read_bytes(GOOD + b"\n" + line)) == [(2, "nested too deeply")]


@pytest.mark.parametrize("mode", [b"", b',"mode":"replace"'])
@pytest.mark.parametrize("change_id", [b"", b',"change_id":"i1"', b',"change_id":null'])
@pytest.mark.parametrize("as_of", [b"", b',"as_of":1764324900', b',"as_of":"2025-11-28T10:15Z"', b',"as_of":null'])
def test_a_line_that_has_each_field_once_is_read_the_fast_way(
    mode: bytes, change_id: bytes, as_of: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "parse_slowly", lambda line, _: pytest.fail(f"{line} is read slowly"))
    for metadata in (b"{}", b'{"a":"b"}', b'{"a":"b","c":"d"}') + ((b'{"a":null,"c":"d"}',) if not mode else ()):
        for id_field in ("completion_id", "id"):
            line = b'{"%b":"x","metadata":%b%b%b%b}' % (id_field.encode(), metadata, mode, change_id, as_of)
            assert line_parser(Reading(id_column=id_field))(line).completion_id == "x"


def test_a_line_number_within_a_value_is_told_where_it_has_more_than_one() -> None:
    assert refusals(read_bytes(b"grade")) == [(1, "not JSON: expecting value at column 1")]
    assert refusals(read_bytes(b'{"completion_id": "x",\n "metadata": oops}', "json")) == [
        (1, "not JSON: expecting value at column 14 of its line 2")
    ]
