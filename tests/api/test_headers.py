"""Delays, rate limits and request ids in all the forms that services have sent them."""

import math
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tests.api.properties import unhurried
from worker.api.headers import (
    RateLimit,
    read_delay_seconds,
    read_duration_seconds,
    read_keep_alive_seconds,
    read_rate_limit,
    read_request_id,
    read_should_retry,
)

NOON = "Sun, 06 Nov 1994 12:00:00 GMT"
NOON_UNIX = 784_123_200.0
HALF_A_MINUTE_LATER = "Sun, 06 Nov 1994 12:00:30 GMT"


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "86400"}, 86_400.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250.5"}, 0.2505),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "nonsense", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "86400001"}, 86_400.001),
        ({"retry-after": "86401"}, 86_401.0),
        ({"retry-after": "2592000"}, 2_592_000.0),
        ({"retry-after": "31536000"}, 31_536_000.0),
        ({"retry-after-ms": "31536000000"}, 31_536_000.0),
    ],
)
def test_a_delay_is_read_in_each_form_and_milliseconds_come_before_seconds(
    headers: dict[str, str], delay: float | None
) -> None:
    assert read_delay_seconds(headers) == delay


@pytest.mark.parametrize(
    "absurd",
    ["-1", "-0.5", "nan", "inf", "Infinity", "1e3", "31536000001", "9" * 400, "", "soon", "1_000", "٣", "0x10"],
)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
def test_an_absurd_delay_is_none(name: str, absurd: str) -> None:
    assert read_delay_seconds({name: absurd}) is None


def test_a_date_is_relative_to_the_answers_own_date() -> None:
    assert read_delay_seconds({"retry-after": HALF_A_MINUTE_LATER, "date": NOON}, now=0.0) == 30.0
    assert read_delay_seconds({"retry-after": NOON, "date": NOON}) == 0.0


def test_a_date_is_relative_to_now_where_the_answer_has_none() -> None:
    assert read_delay_seconds({"retry-after": HALF_A_MINUTE_LATER}, now=NOON_UNIX) == 30.0
    assert read_delay_seconds({"retry-after": HALF_A_MINUTE_LATER, "date": "noon"}, now=NOON_UNIX) == 30.0
    assert read_delay_seconds({"retry-after": HALF_A_MINUTE_LATER}) is None


@pytest.mark.parametrize(
    "date", [NOON, "Mon, 06 Nov 1995 12:00:31 GMT", "Sun, 99 Nov 1994 12:00:00 GMT", "Sun, 06 Nov 0000 12:00:00 GMT"]
)
def test_a_date_that_is_past_absurd_or_impossible_is_none(date: str) -> None:
    assert read_delay_seconds({"retry-after": date, "date": HALF_A_MINUTE_LATER}) is None


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_date_without_a_zone_is_taken_as_utc() -> None:
    assert read_delay_seconds({"retry-after": "Sun, 06 Nov 1994 12:00:30 -0000"}, now=NOON_UNIX) == 30.0
    assert read_delay_seconds({"retry-after": "Sun, 06 Nov 1994 14:00:30 +0200"}, now=NOON_UNIX) == 30.0


def test_headers_of_any_case_are_found() -> None:
    assert read_delay_seconds(CIMultiDict({"Retry-After": "3"})) == 3.0
    assert read_request_id(CIMultiDict({"X-Request-ID": "req_1"})) == "req_1"


@unhurried
@given(st.text(max_size=40), st.text(max_size=40), st.none() | st.floats())
def test_a_delay_is_plausible_or_none(told: str, date: str, now: float | None) -> None:
    delay = read_delay_seconds({"retry-after": told, "retry-after-ms": date, "date": date}, now)
    assert delay is None or 0 <= delay <= 365 * 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2ms", 0.002),
        ("20ms", 0.02),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("6m0s", 360.0),
        ("1h23m31s", 5011.0),
        ("8m38.4s", 518.4),
        ("1d", 86_400.0),
        ("500us", 0.0005),
        ("500µs", 0.0005),
        ("7", 7.0),
        ("7.5", 7.5),
        ("0", 0.0),
        ("0s", 0.0),
        ("-1", None),
        ("-1s", None),
        ("2d", None),
        ("nan", None),
        ("", None),
        ("s", None),
        ("1x", None),
        ("1m 30s", None),
        ("1..5s", None),
        ("9" * 400 + "s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    found = read_duration_seconds(text)
    assert found is None if seconds is None else math.isclose(found or 0.0, seconds)


def rate_limit_headers(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("headers", "rate_limit"),
    [
        ({}, None),
        (rate_limit_headers("500", "499", "120ms"), RateLimit(500, 499, 0.12)),
        (rate_limit_headers("500", "0", "6m0s"), RateLimit(500, 0, 360.0)),
        (rate_limit_headers("500", "-1", "0"), RateLimit(500, None, 0.0)),
        (rate_limit_headers("0", "-1", "-1"), None),
        (rate_limit_headers("many", "some", "later"), None),
        ({"x-ratelimit-remaining-requests": "3"}, RateLimit(None, 3, None)),
    ],
)
def test_rate_limits(headers: dict[str, str], rate_limit: RateLimit | None) -> None:
    assert read_rate_limit(headers) == rate_limit


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("req_1", "req_1"),
        ("", None),
        ("a\udcffb\x1b", "a?b?"),
        ("a\x1bb", "a?b"),
        ("\xe91", "?1"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_request_id_is_kept_in_a_form_that_any_store_takes(sent: str, kept: str | None) -> None:
    assert read_request_id({"x-request-id": sent}) == kept


def test_without_x_should_retry_the_answer_is_none() -> None:
    assert read_should_retry({}) is None


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("timeout=5", 5.0),
        ("max=100, timeout=30", 30.0),
        ('TIMEOUT = "7"', 7.0),
        ("timeout=0", 0.0),
        ("max=100", None),
        ("timeout=soon", None),
        ("notimeout=5", None),
        ("", None),
    ],
)
def test_how_long_a_server_keeps_an_idle_connection(told: str, seconds: float | None) -> None:
    assert read_keep_alive_seconds({"keep-alive": told}) == seconds


def test_without_keep_alive_the_idle_time_is_none() -> None:
    assert read_keep_alive_seconds({"connection": "keep-alive"}) is None
