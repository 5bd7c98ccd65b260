"""Errors are kept without the key and the metadata values that were sent, however a service quotes them."""

import json
from collections.abc import Callable
from html import escape
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.properties import unhurried
from worker.api import verdict
from worker.api.redact import _SmallLetters, one_line, redact
from worker.spellings import MASK

KEY = "recognisable-key-0123456789"
VALUE = 'Jane "JJ" Doe <jane@example.org>, Zoë & 5\\6'


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: ***."),
        ("Incorrect API key provided: recognis**********6789.", "Incorrect API key provided: ***"),
        ("Incorrect API key provided: sk-proj-abc_DEF-123. You can", "Incorrect API key provided: *** You can"),
        ("Incorrect API key provided: 'sk-abcd'", "Incorrect API key provided: '***'"),
        ("header 'Authorization: Bearer abcdef.ghi' is bad", "header 'Authorization: Bearer ***' is bad"),
        ("the key starts with recognisable-k", "the key starts with ***"),
        ("task-based risk-taking", "task-based risk-taking"),
    ],
)
def test_keys_are_masked(text: str, kept: str) -> None:
    assert redact(text, secrets=[KEY]) == kept


@pytest.mark.parametrize("spelled", ["q\\u0022/w9&", "Q%22%2fW9%26", 'q\\\\\\"\\/w9&amp;'])
def test_a_secret_is_masked_however_it_is_spelled(spelled: str) -> None:
    assert redact(f"bad: <{spelled}>", secrets=['q"/w9&']) == "bad: <***>"


@pytest.mark.parametrize(
    "quoted",
    [
        VALUE,
        VALUE.lower(),
        VALUE.upper(),
        quote(VALUE).lower(),
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        repr(VALUE),
        escape(VALUE),
        quote(VALUE),
        json.dumps({"metadata": {"name": VALUE}}),
        VALUE[:20] + "...",
        "..." + VALUE[-20:],
        VALUE[:10] + " ... " + VALUE[-10:],
    ],
)
def test_a_value_is_masked_however_it_is_quoted(quoted: str) -> None:
    kept = redact(f"Invalid value: {quoted} for it", values=["other", VALUE])
    assert kept.startswith("Invalid value: ")
    assert kept.endswith(" for it")
    assert "***" in kept
    assert not any(part in kept for part in ("Jane", "Doe", "example", "jane", "Zo", "5"))


@pytest.mark.parametrize(
    "write",
    [
        str,
        json.dumps,
        lambda v: json.dumps(v, ensure_ascii=False),
        escape,
        quote,
        lambda v: quote(v, safe=""),
        quote_plus,
    ],
)
def test_a_short_value_is_masked_in_any_form(write: Callable[[str], str]) -> None:
    value = 'ë"& /'
    assert redact(f"bad: {write(value).strip(chr(34))}!", values=[value]) == "bad: ***!"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("bad value gold here", "bad value *** here"),
        ("bad value 'goldrush'", "bad value '***rush'"),
        ("bad value platin...", "bad value ***..."),
        ("bad value plat…", "bad value ***…"),
        ("'a' is not a value", "'***' is not a value"),
        ('"a" `a` \\"a\\" \u2018a\u2019 &quot;a&quot;', '"***" `***` \\"***\\" \u2018***\u2019 &quot;***&quot;'),
        ("gold, gold and plat… or plat…", "***, *** and ***… or ***…"),
        ("'a' is 'a', and \"a\" is \"a\"", "'***' is '***', and \"***\" is \"***\""),
        ("'a'a'a'", "'***'***'***'"),  # quotes that two of them share
        ("nothing at all", "nothing at all"),
    ],
)
def test_short_values_are_masked_whole_and_the_shortest_in_quotes(text: str, kept: str) -> None:
    assert redact(text, values=["gold", "platinum", "a", ""]) == kept


def test_a_secret_of_four_characters_is_masked_however_it_is_spelled() -> None:
    assert redact(r"the login a\u0022b1 is wrong", secrets=['a"b1']) == "the login *** is wrong"


def test_a_short_secret_that_stands_twice_is_masked_twice() -> None:
    assert redact("bad 'ab', then 'ab'; gold, then gold", secrets=["ab", "gold"]) == (
        "bad '***', then '***'; ***, then ***"
    )


def test_a_value_is_masked_where_a_page_has_lost_its_tags() -> None:
    page = "<html><body><p>Blocked: <b>Anna</b> <i>Lee</i></p></body></html>"
    assert verdict(403, {}, page.encode(), asked="c-1", sent=["<b>Anna</b> <i>Lee</i>"]).error == (
        "HTTP 403 Forbidden: Blocked: ***"
    )


@pytest.mark.parametrize("text", ["x" * 400_000, "x" * 200_000 + "***" + "x" * 200_000, "sk-" * 130_000])
def test_a_long_text_without_spaces_takes_linear_time(text: str) -> None:
    """Quadratic time would be minutes, and run into the time-out of the suite."""
    assert len(redact(text, values=["gold"])) <= len(text)


@pytest.fixture
def no_letter_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.api.redact._SMALL", _SmallLetters())


@pytest.mark.usefixtures("no_letter_seen_before")
@pytest.mark.parametrize("value", ["Ada.Moss@Example.test", "Zoë Müller", "GROẞE GASSE 12"])
def test_a_value_is_masked_in_small_and_in_capital_letters(value: str) -> None:
    assert redact(f"bad: {value.lower()}, {value.upper()}.", values=[value]) == "bad: ***, ***."


@pytest.mark.usefixtures("no_letter_seen_before")
def test_letters_that_depend_on_their_place_or_become_two_hide_no_value() -> None:
    assert redact("bad: ΤΕΛΙΚΟΣ...", values=["ΤΕΛΙΚΟΣΛΟΓΟΣ"]) == "bad: ***..."
    assert redact("İZMİR: GOLDEN-1.", values=["golden-1"]) == "İZMİR: ***."


def test_overlapping_values_leave_nothing_of_either() -> None:
    assert redact("x abcdefghijkl y", values=["abcdefgh", "efghijkl"]) == "x *** y"
    assert redact("x abababa y", values=["abab"]) == "x ***a y"
    assert redact("x aaaaa y", values=["aaaa"]) == "x *** y"


def test_a_value_with_line_breaks_is_masked_in_a_text_on_one_line() -> None:
    value = "first line\n\n\tsecond\x07line"
    assert redact(one_line(f"bad: {value}!"), values=[value]) == "bad: ***!"


@unhurried
@given(
    value=st.text(st.characters(codec="utf-8"), min_size=8, max_size=600),
    before=st.text("0123", max_size=600),
    form=st.sampled_from([str, json.dumps, repr, escape]),
)
def test_no_piece_of_a_value_of_eight_characters_survives(value: str, before: str, form: type[str]) -> None:
    text = one_line(f"{before} {form(value)}")
    kept = redact(text, values=[value])
    shown = one_line(value)
    pieces = {shown[start : start + 8] for start in range(len(shown) - 7)} - {""}
    assert not any(piece in kept for piece in pieces if "*" not in piece)


def test_a_verdict_holds_neither_key_nor_value() -> None:
    value = "a private remark about somebody"
    message = f"Invalid value: '{value}' (key {KEY}). {'x' * 400} {value}"
    for body in (
        json.dumps({"error": {"message": message, "code": value, "param": value}}).encode(),
        json.dumps({"error": message}).encode(),
        message.encode(),
        f"<html><body><pre>{escape(message)}</pre></body></html>".encode(),
    ):
        for status in (200, 400, 401, 404, 429, 500):
            error = verdict(status, {}, body, secrets=[KEY], sent=[value]).error
            assert error is not None
            assert "private" not in error
            assert "somebody" not in error
            assert "recognisable" not in error


@pytest.mark.parametrize("filling", range(1_940, 2_010, 7))
def test_a_value_that_is_cut_by_our_own_limit_leaves_nothing(filling: int) -> None:
    value = "abcdefghijklmnopqrstuvwxyz"
    masked = "m" * 60  # so that the text after it is not cut off with the rest
    message = " ".join([masked] * (filling // 61)) + "-" * (filling % 61) + value + "!" * 100
    error = verdict(400, {}, json.dumps({"error": message}).encode(), sent=[value, masked]).error
    assert error is not None
    assert not any(value[start : start + 4] in error for start in range(len(value) - 3))


@pytest.mark.parametrize("ellipsis_", ["...", "…"])
@pytest.mark.parametrize("length", range(4, 8))
def test_a_value_before_an_ellipsis_is_masked_from_four_characters_on(length: int, ellipsis_: str) -> None:
    value = "Zq7xW9pLkT"
    text = f"bad value {value[:length]}{ellipsis_} and {value[:3]}{ellipsis_}"
    assert redact(text, values=[value]) == f"bad value {MASK}{ellipsis_} and {value[:3]}{ellipsis_}"


@pytest.mark.parametrize("start", [0, 7, 18])
def test_eight_characters_of_a_value_are_masked_wherever_in_it_they_stand(start: int) -> None:
    value = "abcdefghijklmnopqrstuvwxyz"
    assert redact(f"bad: {value[start : start + 8]}!", values=[value]) == "bad: ***!"
    assert redact(f"bad: {value[start : start + 7]}!", values=[value]) == f"bad: {value[start : start + 7]}!"


def test_a_value_that_has_no_utf8_form_is_masked_too() -> None:
    value = "half \ud800 a pair"
    assert redact(one_line(f"bad: {value}!"), values=[value]) == "bad: ***!"
