"""`as_of` in lines, records, cells and mappings: the same forms work, and ambiguous times are refused."""

import json
import os
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.changes.reading import csv_of, read_bytes, read_file, refusals
from worker.changes import InvalidChange, MetadataChange
from worker.changes.files import ChangeFile, Reading, Refusal, UnreadableFile
from worker.changes.mapping import change_from

SATURDAY = datetime(2026, 11, 28, 10, 15, tzinfo=UTC).timestamp()
BEFORE = SATURDAY - 86_400
NOW = SATURDAY + 86_399

TAKEN: list[tuple[str | float, float]] = [
    ("2026-11-28T10:15Z", SATURDAY),
    ("2026-11-28T10:15:00+00:00", SATURDAY),
    ("2026-11-28 11:15:00.250+01:00", SATURDAY + 0.25),
    ("20261128T101500Z", SATURDAY),
    ("2026-11-28T10:15:00.123456789Z", SATURDAY + 0.123456),
    (SATURDAY, SATURDAY),
    (int(SATURDAY), SATURDAY),
    (f"{SATURDAY:.0f}", SATURDAY),
    (f"{SATURDAY + 0.5}", SATURDAY + 0.5),
    (100_000_000, 1e8),
    (NOW + 86_400, NOW + 86_400),  # clocks differ
]
REFUSED = [
    ("2026-11-28T10:15", "has no zone"),
    ("2026-11-28", "has no zone"),
    ("20261128", "is no time after March 1973"),  # a date, not a count of seconds
    (20261128, "is no time after March 1973"),
    (0, "is no time after March 1973"),
    (-1, "is no time after March 1973"),
    ("1970-01-01T00:00:00Z", "is no time after March 1973"),
    (46354.4, "is no time after March 1973"),  # a spreadsheet's days
    (1e10, "in milliseconds"),
    (1764324900000, "in milliseconds"),
    ("1764324900000", "in milliseconds"),
    (1764324900000000000, "in milliseconds, or finer"),
    (NOW + 86_401, "is in the future"),
    (9_999_999_999, "is in the future"),
    ("2126-11-28T10:15Z", "is in the future"),
    ("2999-11-28T10:15Z", "is in the future"),  # more seconds than milliseconds are taken for, and yet no count
    ("nan", "is no time"),
    ("inf", "is no time"),
    ("1e9", "is no time"),
    ("yesterday", "is no time"),
    ("2026-13-28T10:15Z", "is no time"),
    ("0001-01-01T00:00+23:59", "is no time after March 1973"),
    (" 1764324900", "is no time"),
]


@pytest.fixture(autouse=True)
def _sunday(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


def _line(as_of: object) -> bytes:
    return json.dumps({"completion_id": "c", "metadata": {"g": "A"}, "as_of": as_of}).encode()


def _slowly(as_of: object) -> bytes:
    """What the fast reader hands to the thorough one: an escaped quote."""
    return json.dumps({"completion_id": "c", "metadata": {"g": '"'}, "as_of": as_of}).encode()


def _row(as_of: object) -> bytes:
    return csv_of(("completion_id", "as_of", "g"), ("c", str(as_of), "A"))


def _row_with_map(as_of: object) -> bytes:
    return b'completion_id,as_of,metadata\nc,%b,"{""g"": ""A""}"\n' % str(as_of).encode()


FORMS: list[tuple[Any, Any]] = [
    (_line, "jsonl"),
    (_slowly, "jsonl"),
    (_line, "json"),
    (_row, "csv"),
    (_row_with_map, "csv"),
]


@pytest.mark.parametrize(("make", "form"), FORMS)
@pytest.mark.parametrize(("given", "seconds"), TAKEN)
def test_every_form_of_a_time_is_read_alike(make: Any, form: Any, given: object, seconds: float) -> None:
    [change] = read_bytes(make(given), form)
    assert isinstance(change, MetadataChange), change
    assert change.as_of == pytest.approx(seconds, abs=1e-6)
    assert change_from({"completion_id": "c", "metadata": {}, "as_of": given}).as_of == change.as_of


@pytest.mark.parametrize(("make", "form"), FORMS)
@pytest.mark.parametrize(("given", "reason"), REFUSED)
def test_an_ambiguous_time_is_refused(make: Any, form: Any, given: object, reason: str) -> None:
    [refusal] = read_bytes(make(given), form)
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert "as_of" in refusal.reason
    with pytest.raises(InvalidChange, match=reason):
        change_from({"completion_id": "c", "metadata": {}, "as_of": given})


@pytest.mark.parametrize("given", [True, [], {}, "NaN"])
def test_text_that_is_no_time_is_refused(given: object) -> None:
    [refusal] = read_bytes(_line(given))
    assert isinstance(refusal, Refusal)
    with pytest.raises(InvalidChange, match="as_of"):
        change_from({"completion_id": "c", "metadata": {}, "as_of": given})


@pytest.mark.parametrize("given", [given for given, why in REFUSED if why != "is in the future"] + [True, [], {}])
def test_the_reason_shows_a_valid_time_in_every_face(given: Any) -> None:
    [refusal] = read_bytes(_line(given))
    assert isinstance(refusal, Refusal)
    with pytest.raises(InvalidChange) as caught:
        change_from({"completion_id": "c", "metadata": {}, "as_of": given})
    for reason in (refusal.reason, str(caught.value)):
        assert "such as 1764324900" in reason or "2026-11-28T10:15Z" in reason


def test_a_datetime_with_a_zone_is_taken_from_code() -> None:
    zoned = datetime(2026, 11, 28, 11, 15, tzinfo=timezone(timedelta(hours=1)))
    assert change_from({"completion_id": "c", "metadata": {}, "as_of": zoned}).as_of == SATURDAY
    with pytest.raises(InvalidChange, match="has no zone"):
        change_from({"completion_id": "c", "metadata": {}, "as_of": zoned.replace(tzinfo=None)})
    with pytest.raises(InvalidChange, match="as_of must be a time, not date"):
        change_from({"completion_id": "c", "metadata": {}, "as_of": zoned.date()})
    with pytest.raises(InvalidChange, match="in the future"):
        change_from({"completion_id": "c", "metadata": {}, "as_of": zoned + timedelta(days=2)})
    with pytest.raises(InvalidChange, match="is no time"):
        change_from({"completion_id": "c", "metadata": {}, "as_of": float("nan")})


@pytest.mark.parametrize("make", [_line, _slowly])
def test_null_a_blank_cell_and_a_missing_field_give_no_as_of(make: Any) -> None:
    default = Reading(as_of=BEFORE)
    for content, form in ((make(None), "jsonl"), (_row(""), "csv"), (_row_with_map(""), "csv")):
        for reading in ({}, {"as_of": default.as_of}):
            [change] = read_bytes(content, form, **reading)  # type: ignore[arg-type] # a word of `Format`
            assert isinstance(change, MetadataChange)
            assert change.as_of == reading.get("as_of")
    assert change_from({"completion_id": "c", "metadata": {}, "as_of": None}).as_of is None
    assert change_from({"completion_id": "c", "metadata": {}}).as_of is None


@pytest.mark.parametrize(("make", "form"), FORMS)
def test_the_default_is_for_those_alone_that_have_none(make: Any, form: Any) -> None:
    [change] = read_bytes(make("2026-11-28T10:15Z"), form, as_of=BEFORE)
    assert isinstance(change, MetadataChange)
    assert change.as_of == SATURDAY


def test_each_file_has_its_own_time(tmp_path: Path) -> None:
    for name, seconds in (("a.jsonl", BEFORE), ("b.csv", SATURDAY)):
        path = tmp_path / name
        path.write_bytes(_line(None) if name == "a.jsonl" else csv_of(("completion_id", "g"), ("c", "A")))
        os.utime(path, (seconds, seconds))
        [change] = read_file(path, as_of="mtime")
        assert isinstance(change, MetadataChange)
        assert change.as_of == seconds


def test_input_without_a_modification_time_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="<stdin>: only a regular file tells"):
        read_bytes(_line(None), as_of="mtime")
    path = tmp_path / "a.jsonl"
    path.write_bytes(_line(None))
    os.utime(path, (0, 0))
    with pytest.raises(UnreadableFile, match=r"the time when it was last changed cannot be used: as_of .*1970"):
        ChangeFile.open(str(path), Reading(as_of="mtime"))
    os.utime(path, (SATURDAY + 3 * 86_400,) * 2)
    with pytest.raises(UnreadableFile, match="in the future"):
        ChangeFile.open(str(path), Reading(as_of="mtime"))


@pytest.mark.parametrize("name", ["As-Of", "asOf", "as_of ", "AS_OF"])
def test_a_misspelt_as_of_column_refuses_the_file(name: str) -> None:
    with pytest.raises(UnreadableFile, match="is nearly as_of: write as_of, or 'metadata"):
        read_bytes(csv_of(("completion_id", name, "g"), ("c", "", "A")), "csv")
    [change] = read_bytes(csv_of(("completion_id", f"metadata.{name}"), ("c", "x")), "csv")
    assert isinstance(change, MetadataChange)
    assert (change.metadata, change.as_of) == ({name: "x"}, None)


def test_a_field_that_is_nearly_it_is_unknown_or_passed_over() -> None:
    line = b'{"completion_id": "c", "metadata": {"g": "A"}, "asOf": "2026-11-28T10:15Z"}'
    assert "unknown field 'asOf'" in refusals(read_bytes(line))[0][1]
    [change] = read_bytes(line, ignore_unknown=True)
    assert isinstance(change, MetadataChange)
    assert change.as_of is None
    [kept] = read_bytes(
        csv_of(("completion_id", "as_of", "other"), ("c", str(SATURDAY), "x")), "csv", ignore_unknown=True
    )
    assert kept is None  # it sets nothing


def test_a_key_that_is_there_twice_is_still_found() -> None:
    line = b'{"completion_id": "c", "metadata": {"g": "A"}, "as_of": 1764324900, "as_of": 1764324901}'
    assert "duplicate key 'as_of'" in refusals(read_bytes(line))[0][1]


def test_a_refused_line_is_repaired_with_its_time() -> None:
    entry = {"file": "a", "line": 1, "reason": "x", "text": _line("2026-11-28T10:15Z").decode()}
    [change] = read_bytes(json.dumps(entry).encode())
    assert isinstance(change, MetadataChange)
    assert change.as_of == SATURDAY


AS_IT_MUST_BE = "it must be ISO 8601 with a zone, such as 2026-11-28T10:15Z, or Unix time in seconds"
NO_ZONE = "has no zone: a time needs one, as in 2026-11-28T10:15Z, or 2026-11-28T10:15+01:00"
IN_MS = "is in milliseconds, or finer: it must be in seconds, such as 1764324900"
AHEAD = "is in the future, by this machine's clock: it would block every older change until then"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("2026-11-28T10:15", f"as_of '2026-11-28T10:15' {NO_ZONE}"),
        ("1e9", f"as_of '1e9' is no time: {AS_IT_MUST_BE}"),
        (0, f"as_of '0' is no time after March 1973: {AS_IT_MUST_BE}"),
        (1e10, f"as_of '10000000000.0' {IN_MS}"),
        (datetime(2026, 11, 28, 10, 15), f"as_of '2026-11-28T10:15:00' {NO_ZONE}"),  # noqa: DTZ001 -- what is refused
        ("2999-11-28T10:15Z", f"as_of '2999-11-28T10:15Z' {AHEAD}"),
        (True, f"as_of must be a time, not a boolean: {AS_IT_MUST_BE.removeprefix('it must be ')}"),
    ],
)
def test_the_time_is_shown_as_it_was_given_and_what_it_must_be(given: object, reason: str) -> None:
    with pytest.raises(InvalidChange) as caught:
        change_from({"completion_id": "c", "metadata": {}, "as_of": given})
    assert str(caught.value) == reason


def test_the_earliest_and_the_latest_time_are_taken() -> None:
    for given in (1e8, NOW + 86_400.0):
        assert change_from({"completion_id": "c", "metadata": {}, "as_of": given}).as_of == given
    for given in (99_999_999.0, NOW + 86_400.5):
        with pytest.raises(InvalidChange):
            change_from({"completion_id": "c", "metadata": {}, "as_of": given})


def test_the_time_of_a_file_is_shown_in_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_line(None))
    os.utime(path, (0, 0))
    monkeypatch.setenv("TZ", "UTC-9")
    time.tzset()
    try:
        with pytest.raises(UnreadableFile) as caught:
            ChangeFile.open(str(path), Reading(as_of="mtime"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert caught.value.refusal == Refusal(
        str(path),
        0,
        "the time when it was last changed cannot be used: as_of '1970-01-01 00:00:00+00:00' is no time after March "
        "1973: it must be ISO 8601 with a zone, such as 2026-11-28T10:15Z, or Unix time in seconds",
    )


def test_standard_input_has_no_time_even_where_it_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_line(None))
    with path.open("rb") as stdin, pytest.raises(UnreadableFile, match=r"^<stdin>: only a regular file tells"):
        ChangeFile.open("-", Reading(as_of="mtime"), stdin=stdin)


def test_a_file_tells_how_it_is_read_with_its_own_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_line(None))
    os.utime(path, (BEFORE, BEFORE))
    with ChangeFile.open(str(path), Reading("replace", as_of="mtime")) as file:
        assert file.reading == Reading("replace", as_of=BEFORE)
