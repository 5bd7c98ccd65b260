"""A secret is masked however a text spells it."""

import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from config import logs, sink
from tests.api.properties import unhurried
from worker.spellings import masked, plain_part

SECRETS = ("sk-plain_key.1~", 'pa"ss\\wörd/12 34', "a\\\\b<&>'\"%+=\U0001f600;", "\\ends as it begins\\", '""""////%&')


def _as_dotnet(text: str) -> str:
    """As .NET writes JSON: with capital digits, and an escape for most that is no letter."""
    return "".join(map(_dotnet_character, text))


def _dotnet_character(one: str) -> str:
    if one == "\\":
        return "\\\\"
    if one.isascii() and (one.isalnum() or one in "-._~/ "):
        return one
    units = one.encode("utf-16-be").hex().upper()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


_Write = Callable[[str], str]
WRITERS: dict[str, _Write] = {
    "plain": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "json of PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json of .NET": _as_dotnet,
    "json in json": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "repr": lambda text: repr(f"{text}'\"")[1:-4],
    "ascii": lambda text: ascii(text)[1:-1],
    "bytes": lambda text: repr(text.encode())[2:-1],
    "html": html.escape,
    "html, decimal": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "quote": quote,
    "quote all": lambda text: quote(text, safe=""),
    "quote in small letters": lambda text: "".join(
        quote(one, safe="").lower() if quote(one) != one else one for one in text
    ),
    "quote of JavaScript": lambda text: quote(text, safe="!'()*"),
    "quote of a form": quote_plus,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_masked_however_it_is_spelled(secret: str, write: _Write) -> None:
    assert plain_part(secret) in write(secret)
    assert masked(f"<{write(secret)}> and <{write(secret)}>", [secret]) == "<***> and <***>"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_spelling_reaches_the_log(log_format: logs.LogFormat, capfd: pytest.CaptureFixture[str]) -> None:
    for secret in SECRETS:
        logs.conceal(secret)
    logs.configure(log_format, "info")
    for secret in SECRETS:
        for name, write in WRITERS.items():
            structlog.get_logger().warning("seen", text=f"<{write(secret)}>", spelling=name)
    sink.flush()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == len(SECRETS) * len(WRITERS)
    for line in lines:
        assert (json.loads(line)["text"] if log_format == "json" else line).count("<***>") == 1, line


def test_what_is_short_or_another_word_stays() -> None:
    assert masked("pass-wo Pass-word", ["pass-wo", "", "pass-word"]) == "pass-wo Pass-word"


@unhurried
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=8, max_size=60),
    st.sampled_from(sorted(WRITERS)),
)
def test_any_text_can_be_a_secret(secret: str, writer: str) -> None:
    assert masked(f"<{WRITERS[writer](secret)}>", [secret]) == "<***>"
