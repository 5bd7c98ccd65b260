"""One test for each row of the table that says what an answer means."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.properties import unhurried
from worker.api import Halt, Kind, RateLimit, Verdict, verdict
from worker.api.verdict import judge

PAGE = b"""<!DOCTYPE html><html><head><title>502</title><style>p{}</style><script>x()</script></head>
<body><!-- comment --><h1>Bad &amp; broken</h1>
<p>cloud</p></body></html>"""
ABSENT = {"message": "Completion ID not found", "type": "invalid_request_error", "param": "completion_id"}


def envelope(message: str = "no", *, code: object = None, kind: str | None = None, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def kind_of(status: int, body: bytes = b"", **headers: str) -> Kind:
    return verdict(status, {name.replace("_", "-"): value for name, value in headers.items()}, body).kind


def halt_of(status: int, body: bytes = b"") -> Halt | None:
    found = verdict(status, {}, body)
    assert (found.kind is Kind.HALTED) == (found.halt is not None)
    return found.halt


@pytest.mark.parametrize("status", [200, 201, 202, 206])
def test_a_success_with_an_object_is_ok(status: int) -> None:
    body = b'{"id":"chatcmpl-1","metadata":{"k":"v"},"choices":[{"message":{"content":"hi"}}]}'
    found, metadata = judge(status, {"x-request-id": "req_1"}, body)
    assert found == Verdict(Kind.OK, status, "req_1")
    assert metadata == {"k": "v"}


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (b"{}", None),
        (b'{"metadata":null}', None),
        (b'{"metadata":{}}', {}),
        (b'{"metadata":"text"}', None),
        (b'{"metadata":[1]}', None),
        (b'{"metadata":{"a":"1","b":2,"c":null,"d":{}}}', {"a": "1"}),
        (b'{"metadata":{"a":"1","b":"\\ud83d"}}', {"a": "1"}),
        (b'{"metadata":{"a":"1"},"choices":"odd","seed":NaN}', {"a": "1"}),
        (b'{"metadata":{"a":"1"},"choices":[{"message":{"content":"half \\ud83d a pair"}}]}', {"a": "1"}),
        (b'\xef\xbb\xbf{"metadata":{"a":"1"}}', {"a": "1"}),
        (b'{"metadata":{"a":"1"},"error":null}', {"a": "1"}),
    ],
)
def test_a_success_is_ok_whatever_its_fields_and_metadata_is_what_fits(
    body: bytes, metadata: dict[str, str] | None
) -> None:
    found, shown = judge(200, {}, body)
    assert found.kind is Kind.OK
    assert shown == metadata


@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"<html>Welcome to SECRET Hotel</html>", "is HTML, not JSON"),
        (b'{"id":"chatcmpl-1","choices":[{"message":{"content":"SECRET', "is not valid JSON"),
        (b"SECRET", "is not valid JSON"),
        (b"\xff\xfeSECRET", "is not valid JSON"),
        (b'{"a":' + b"[" * 100_000, "is not valid JSON"),
        (b'["SECRET"]', "is an array, not an object"),
        (b'"SECRET"', "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (envelope("it broke", code="server_error"), "holds an error: server_error: it broke"),
        (b'{"error":"it broke"}', "holds an error: it broke"),
        (b'{"error":{"strange":"SECRET"}}', "holds an error"),
        (b'{"error":17,"choices":["SECRET"]}', "holds an error"),
    ],
)
def test_a_success_that_makes_no_sense_is_retried_and_its_body_is_not_kept(status: int, body: bytes, seen: str) -> None:
    found, metadata = judge(status, {"x-request-id": "req_1"}, body)
    assert found == Verdict(Kind.RETRY, status, "req_1", f"HTTP {status}, but the answer {seen}")
    assert metadata is None


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_halts_as_a_wrong_url(status: int) -> None:
    assert halt_of(status) is Halt.WRONG_URL


@pytest.mark.parametrize("status", [400, 413, 422, 418, 431])
def test_a_bad_request_is_rejected(status: int) -> None:
    body = envelope("string too long", code="string_above_max_length", param="metadata.k")
    found = verdict(status, {}, body)
    assert found.kind is Kind.REJECTED
    assert found.error is not None
    assert found.error.endswith("string_above_max_length: string too long (metadata.k)")


def test_a_bad_key_and_a_missing_scope_halt_as_unauthorized() -> None:
    assert halt_of(401, envelope("Incorrect API key", code="invalid_api_key")) is Halt.UNAUTHORIZED
    assert halt_of(401, envelope("Missing scopes: api.model.write")) is Halt.UNAUTHORIZED


def test_a_missing_permission_halts_as_forbidden() -> None:
    assert halt_of(403) is Halt.FORBIDDEN


def test_a_proxy_that_wants_a_login_halts() -> None:
    assert halt_of(407) is Halt.UNAUTHORIZED


def test_a_payment_that_is_required_halts_as_quota() -> None:
    assert halt_of(402) is Halt.QUOTA


def test_a_method_that_is_not_allowed_halts_as_a_wrong_url() -> None:
    assert halt_of(405) is Halt.WRONG_URL


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": {**ABSENT, "code": "not_found"}}).encode(),
        envelope("no such thing", code="not_found", param="completion_id"),
        envelope("Completion ID not found", code=None),
        envelope("Completion ID not found."),
        b'{"error":"Completion ID not found"}',
    ],
)
def test_an_absent_completion_is_not_found(status: int, body: bytes) -> None:
    assert kind_of(status, body) is Kind.NOT_FOUND


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>",
        envelope("Invalid URL (POST /v2/chat)", kind="invalid_request_error"),
        envelope("Resource not found", code="404"),
        envelope("Resource not found", code=404),
        envelope("no such model", code="not_found", param="model"),
        b'{"statusCode":404,"message":"Resource not found"}',
        b'["Completion ID not found"]',
    ],
)
def test_any_other_404_halts_as_a_wrong_url(status: int, body: bytes) -> None:
    assert halt_of(status, body) is Halt.WRONG_URL


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 520, 524, 599, 999, 100, 101])
def test_what_may_pass_is_retried(status: int) -> None:
    assert kind_of(status, envelope()) is Kind.RETRY


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "slow_down", None, 429])
def test_too_many_requests_are_a_throttle(code: object) -> None:
    assert kind_of(429, envelope("slower", code=code)) is Kind.THROTTLED
    assert kind_of(429, b"") is Kind.THROTTLED


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_quota",
        "credit_balance_exhausted",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_not_active",
    ],
)
def test_an_exhausted_quota_halts(code: str) -> None:
    assert halt_of(429, envelope("quota", code=code)) is Halt.QUOTA
    assert halt_of(429, envelope("quota", kind=code)) is Halt.QUOTA


@pytest.mark.parametrize("status", [429, 503])
def test_slow_down_is_told(status: int) -> None:
    assert verdict(status, {}, envelope("slower", code="slow_down")).slow_down
    assert verdict(status, {}, envelope("slower", kind="slow_down")).slow_down
    assert not verdict(status, {}, envelope("slower", code="rate_limit_exceeded")).slow_down


def test_x_should_retry_true_turns_a_rejection_into_a_retry() -> None:
    assert kind_of(400, envelope(), x_should_retry="true") is Kind.RETRY
    assert kind_of(400, envelope(), x_should_retry=" True ") is Kind.RETRY


@pytest.mark.parametrize("status", [408, 409, 500, 503])
def test_x_should_retry_false_turns_a_retry_into_a_rejection(status: int) -> None:
    assert kind_of(status, envelope(), x_should_retry="false") is Kind.REJECTED


def test_x_should_retry_false_ends_the_wait_for_an_absent_completion() -> None:
    body = envelope("Completion ID not found", code="not_found", param="completion_id")
    assert kind_of(404, body, x_should_retry="false") is Kind.REJECTED
    assert kind_of(404, body, x_should_retry="true") is Kind.NOT_FOUND


@pytest.mark.parametrize("word", ["true", "false"])
def test_x_should_retry_touches_neither_throttles_nor_halts_nor_successes(word: str) -> None:
    assert kind_of(429, envelope(), x_should_retry=word) is Kind.THROTTLED
    assert kind_of(429, envelope(code="insufficient_quota"), x_should_retry=word) is Kind.HALTED
    assert kind_of(401, envelope(), x_should_retry=word) is Kind.HALTED
    assert kind_of(404, b"", x_should_retry=word) is Kind.HALTED
    assert kind_of(302, b"", x_should_retry=word) is Kind.HALTED
    assert kind_of(200, b"{}", x_should_retry=word) is Kind.OK
    assert kind_of(200, b"", x_should_retry=word) is Kind.RETRY


@pytest.mark.parametrize("word", ["", "1", "yes", "maybe"])
def test_another_x_should_retry_says_nothing(word: str) -> None:
    assert kind_of(400, envelope(), x_should_retry=word) is Kind.REJECTED
    assert kind_of(500, envelope(), x_should_retry=word) is Kind.RETRY


def test_every_answer_tells_its_delay_and_rate_limit() -> None:
    headers = {"retry-after": "7", "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"}
    for status, body in [(200, b"{}"), (200, b""), (429, envelope()), (503, b"")]:
        found = verdict(status, headers, body)
        assert found.delay_seconds == 7.0
        assert found.rate_limit == RateLimit(60, 59, None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "HTTP 502 Bad Gateway"),
        (b"upstream  went\n away", "HTTP 502 Bad Gateway: upstream went away"),
        (b'{"error":"bare string"}', "HTTP 502 Bad Gateway: bare string"),
        (b'{"error":null,"message":"by a gateway"}', "HTTP 502 Bad Gateway: by a gateway"),
        (b'{"detail":"by a framework"}', "HTTP 502 Bad Gateway: by a framework"),
        (b'{"title":"a problem","status":502}', "HTTP 502 Bad Gateway: a problem"),
        (b'{"error":{"code":7,"message":["odd"]}}', "HTTP 502 Bad Gateway: 7"),
        (b'{"choices":[{"message":{"content":"SECRET"}}]}', "HTTP 502 Bad Gateway"),
        (b'{"choices":[{"message":{"content":"SECRET', "HTTP 502 Bad Gateway"),
        (b'\xef\xbb\xbf{"choices":["SECRET', "HTTP 502 Bad Gateway"),
        (b'["SECRET"]', "HTTP 502 Bad Gateway"),
        (b'"SECRET"', "HTTP 502 Bad Gateway"),
        (b"caf\xe9 \xff\x00\x1b[31m", "HTTP 502 Bad Gateway: caf\ufffd \ufffd [31m"),
        (
            PAGE,
            "HTTP 502 Bad Gateway: 502 Bad & broken cloud",
        ),
        (b"<script>never closed", "HTTP 502 Bad Gateway"),
    ],
)
def test_any_body_gives_a_readable_error(body: bytes, error: str) -> None:
    assert verdict(502, {}, body).error == error


@pytest.mark.parametrize(
    "body", [b"x" * 1000, b"<p>" + b"word " * 30_000, envelope("m" * 100_000), b"<" * 60_000, b"<script" * 9_000]
)
def test_an_error_is_cut_to_500_characters(body: bytes) -> None:
    error = verdict(500, {}, body).error
    assert error is not None
    assert len(error) <= 500


def test_an_unknown_status_is_named_by_its_number() -> None:
    assert verdict(599, {}, b"").error == "HTTP 599"


HEADER_NAMES = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "date",
        "x-request-id",
        "x-should-retry",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "param", "metadata", "choices", "id"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@unhurried
@given(
    status=st.integers(100, 999) | st.integers(),
    headers=st.dictionaries(HEADER_NAMES, st.text(max_size=30)),
    body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    now=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    sent=st.lists(st.text(max_size=20), max_size=3),
)
def test_no_answer_is_beyond_judgement(
    status: int, headers: dict[str, str], body: bytes, now: float | None, sent: list[str]
) -> None:
    found, metadata = judge(status, headers, body, api_key="sk-recognisable", sent=sent, now=now)
    assert (found.kind is Kind.OK) == (found.error is None)
    assert found.kind is Kind.OK or metadata is None
    assert (found.kind is Kind.HALTED) == (found.halt is not None)
    assert found.error is None or (len(found.error) <= 500 and found.error.isprintable())
    assert found.delay_seconds is None or 0 <= found.delay_seconds <= 86_400
    assert found.request_id is None or (found.request_id.isascii() and found.request_id.isprintable())
    assert all(isinstance(value, str) for value in (metadata or {}).values())
