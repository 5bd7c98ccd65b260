"""One test for each row of the table of verdicts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.properties import unhurried
from worker.api import Halt, Kind, RateLimit, Verdict, verdict
from worker.api.judging import Shown, judge

PAGE = b"""<!DOCTYPE html><html><head><title>502</title><style>p{}</style><script>x()</script></head>
<body><!-- comment --><h1>Bad &amp; broken</h1>
<p>cloud</p></body></html>"""
ABSENT = {"message": "Completion ID not found", "type": "invalid_request_error", "param": "completion_id"}


def envelope(message: str = "no", *, code: object = None, kind: str | None = None, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


ASKED = "chatcmpl-1"
STORED = b'{"id":"chatcmpl-1"}'


def said_of(status: int, body: bytes = b"", **headers: str) -> Verdict:
    in_lower_case = {name.replace("_", "-"): value for name, value in headers.items()}
    return verdict(status, in_lower_case, body, asked=ASKED)


def kind_of(status: int, body: bytes = b"", **headers: str) -> Kind:
    return said_of(status, body, **headers).kind


def halt_of(status: int, body: bytes = b"") -> Halt | None:
    found = said_of(status, body)
    assert (found.kind is Kind.HALTED) == (found.halt is not None)
    return found.halt


@pytest.mark.parametrize("status", [200, 201, 202, 206])
def test_a_success_that_shows_the_id_asked_for_is_ok(status: int) -> None:
    body = b'{"id":"chatcmpl-1","metadata":{"k":"v"},"choices":[{"message":{"content":"hi"}}]}'
    found, shown = judge(status, {"x-request-id": "req_1"}, body, asked=ASKED)
    assert found == Verdict(Kind.OK, status, "req_1")
    assert shown == Shown({"k": "v"})


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (b"", Shown(None)),
        (b',"metadata":null', Shown({})),
        (b',"metadata":{}', Shown({})),
        (b',"metadata":"text"', Shown(None, whole=False)),
        (b',"metadata":[1]', Shown(None, whole=False)),
        (b',"metadata":{"a":"1","b":2,"c":null,"d":{}}', Shown({"a": "1"}, whole=False)),
        (b',"metadata":{"a":"1","b":"\\ud83d"}', Shown({"a": "1"}, whole=False)),
        (b',"metadata":{"a":"1"},"choices":"odd","seed":NaN', Shown({"a": "1"})),
        (b',"metadata":null,"seed":NaN', Shown({})),
        (b',"seed":NaN', Shown(None)),
        (b',"metadata":{"a":"1"},"choices":[{"message":{"content":"half \\ud83d a pair"}}]', Shown({"a": "1"})),
        (b',"metadata":{"a":"1"},"error":null', Shown({"a": "1"})),
        (b',"metadata":{"a":"1"},"error":{}', Shown({"a": "1"})),
        (b',"metadata":{"a":"1"},"error":""', Shown({"a": "1"})),
    ],
)
def test_metadata_that_is_unknown_empty_or_not_whole_is_told_apart(fields: bytes, shown: Shown) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        found, told = judge(200, {}, mark + b'{"id":"chatcmpl-1"' + fields + b"}", asked=ASKED)
        assert found == Verdict(Kind.OK, 200)
        assert told == shown


@pytest.mark.parametrize(("status", "body"), [(204, b""), (205, b""), (205, b"{}"), (200, None), (206, None)])
def test_a_success_that_cannot_be_read_is_ok_and_shows_nothing(status: int, body: bytes | None) -> None:
    for asked in (ASKED, None):
        assert judge(status, {}, body, asked=asked) == (Verdict(Kind.OK, status), Shown(unread=True))


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
        (b"{}", "shows no id"),
        (b'{"status":"ok"}', "shows no id"),
        (b'{"success":false,"message":"SECRET"}', "shows no id"),
        (b'{"id":null,"metadata":{}}', "shows no id"),
        (b'{"id":1,"metadata":{}}', "shows no id"),
        (b'{"id":"chatcmpl-2","metadata":{"k":"SECRET"}}', "is about another completion: chatcmpl-2"),
        (b'{"id":"chatcmpl-10","error":{"code":"insufficient_quota"}}', "is about another completion: chatcmpl-10"),
        (b'{"id":"a SECRET text","seed":NaN}', "is about another completion"),
        (b'{"error":"it broke"}', "holds an error: it broke"),
        (b'{"error":{"strange":"SECRET"}}', "holds an error"),
        (b'{"error":17,"choices":["SECRET"]}', "holds an error"),
        (b'{"id":"chatcmpl-1","error":true}', "holds an error"),
    ],
)
def test_a_success_for_another_request_is_foreign_and_its_body_is_not_kept(body: bytes, seen: str) -> None:
    found, shown = judge(200, {"x-request-id": "req_1"}, body, asked=ASKED)
    assert found == Verdict(Kind.RETRY, 200, "req_1", f"HTTP 200, but the answer {seen}", foreign=True)
    assert shown == Shown()


def test_a_page_is_known_by_its_data() -> None:
    assert verdict(200, {}, b'{"object":"list","data":[]}') == Verdict(Kind.OK, 200)
    assert verdict(200, {}, b'{"data":[],"seed":NaN}') == Verdict(Kind.OK, 200)
    for body in (b"{}", STORED, b'{"data":{}}', b'{"data":null,"seed":NaN}'):
        found = verdict(200, {}, body)
        assert (found.kind, found.foreign) == (Kind.RETRY, True)
        assert found.error == "HTTP 200, but the answer is no page of a list"


@pytest.mark.parametrize(
    ("error", "kind", "halt", "foreign"),
    [
        ({"code": "insufficient_quota"}, Kind.HALTED, Halt.QUOTA, False),
        ({"type": "billing_hard_limit_reached"}, Kind.HALTED, Halt.QUOTA, False),
        ({"code": "rate_limit_exceeded"}, Kind.THROTTLED, None, False),
        ({"type": "rate_limit_error"}, Kind.THROTTLED, None, False),
        ({"code": "429"}, Kind.THROTTLED, None, False),
        ({"code": 429}, Kind.THROTTLED, None, False),
        ({"code": "slow_down"}, Kind.THROTTLED, None, False),
        ({"code": "invalid_api_key"}, Kind.HALTED, Halt.UNAUTHORIZED, False),
        ({"code": 403}, Kind.HALTED, Halt.FORBIDDEN, False),
        ({"code": "not_found", "param": "completion_id"}, Kind.NOT_FOUND, None, False),
        ({"code": 404, "message": "Completion chatcmpl-1 not found"}, Kind.NOT_FOUND, None, False),
        ({"code": 404, "message": "Completion chatcmpl-2 not found"}, Kind.RETRY, None, True),
        ({"code": 404, "message": "Resource not found"}, Kind.HALTED, Halt.WRONG_URL, False),
        ({"code": "string_above_max_length", "param": "metadata.k"}, Kind.REJECTED, None, False),
        ({"code": "server_error"}, Kind.RETRY, None, True),
        ({"code": 400, "message": "bad"}, Kind.RETRY, None, True),
        ({"message": "unknown"}, Kind.RETRY, None, True),
    ],
)
def test_a_success_that_holds_an_error_is_judged_by_the_error(
    error: dict[str, object],
    kind: Kind,
    halt: Halt | None,
    foreign: bool,  # noqa: FBT001 -- a column of the table above
) -> None:
    for fields in ({}, {"id": ASKED, "metadata": {"k": "v"}}):
        found, shown = judge(200, {}, json.dumps({**fields, "error": error}).encode(), asked=ASKED)
        assert (found.kind, found.halt, found.foreign, found.envelope) == (kind, halt, foreign, True)
        assert found.status == 200
        assert found.error is not None
        assert found.error.startswith(
            ("HTTP 200, but the answer holds an error: ", "HTTP 200, but the answer is about")
        )
        assert shown == Shown()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_halts_as_a_wrong_url(status: int) -> None:
    assert halt_of(status) is Halt.WRONG_URL


@pytest.mark.parametrize("status", [400, 413, 422, 418, 431])
def test_a_bad_request_is_rejected(status: int) -> None:
    body = envelope("string too long", code="string_above_max_length", param="metadata.k")
    found = verdict(status, {}, body)
    assert found.kind is Kind.REJECTED
    assert (found.envelope, found.code, found.param) == (True, "string_above_max_length", "metadata.k")
    assert found.error is not None
    assert found.error.endswith("string_above_max_length: string too long (metadata.k)")


@pytest.mark.parametrize("status", [400, 406, 411, 413, 414, 415, 417, 418, 421, 422, 426, 428, 431, 451, 460, 499])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><h1>Request Header Or Cookie Too Large</h1></html>",
        b"no",
        b'{"error":"Bad Request","statusCode":400}',
        b'{"message":"bad request"}',
        b'{"detail":[{"loc":["body"]}]}',
        b'{"error":{}}',
        b'{"error":{"status":"INVALID"}}',
    ],
)
def test_without_the_error_format_no_status_is_the_changes_fault(status: int, body: bytes) -> None:
    for headers in ({}, {"x-should-retry": "false"}):
        found = verdict(status, headers, body, asked=ASKED)
        assert found.kind is Kind.RETRY
        assert (found.envelope, found.code, found.param, found.certain) == (False, None, None, False)


@pytest.mark.parametrize("status", [408, 409, 421, 423, 424, 425, 499])
def test_passing_statuses_are_retried_with_the_error_format_too(status: int) -> None:
    assert kind_of(status, envelope()) is Kind.RETRY


@pytest.mark.parametrize(
    ("code", "param", "is_certain"),
    [
        ("object_above_max_properties", "metadata", True),
        ("string_above_max_length", "metadata.topic", True),
        ("string_above_max_length", "metadata[topic]", True),
        ("property_name_above_max_length", "metadata.a\nb", True),
        ("invalid_type", "metadata['k']", True),
        ("invalid_type", "metadata_id", False),
        ("invalid_type", "model", False),
        ("invalid_type", None, False),
        ("missing_required_parameter", "metadata", False),
        ("invalid_value", "metadata.k", False),
        (None, "metadata.k", False),
    ],
)
def test_a_rejection_is_certain_if_it_names_the_metadata(
    code: str | None,
    param: str | None,
    is_certain: bool,  # noqa: FBT001 -- a column of the table above
) -> None:
    body = envelope("no", code=code, kind="invalid_request_error", param=param)
    found = said_of(400, body)
    assert (found.kind, found.certain) == (Kind.REJECTED, is_certain)
    assert found.code == (code or "invalid_request_error")
    for other in (said_of(400, body, x_should_retry="true"), said_of(500, body), said_of(401, body)):
        assert not other.certain


def test_code_and_param_are_kept_short_and_without_secrets() -> None:
    body = envelope(code="a SECRET value " + "x" * 200, param="metadata.SECRET\n" + "y" * 200)
    found = verdict(400, {}, body, sent=["SECRET"], secrets=["value"])
    assert found.code is not None
    assert found.code.startswith("a *** *** xxx")
    assert found.param is not None
    assert found.param.startswith("metadata.*** yyy")
    assert max(len(found.code), len(found.param)) <= 100


def test_a_bad_key_and_a_missing_scope_halt_as_unauthorized() -> None:
    assert halt_of(401, envelope("Incorrect API key", code="invalid_api_key")) is Halt.UNAUTHORIZED
    assert halt_of(401, envelope("Missing scopes: api.model.write")) is Halt.UNAUTHORIZED


def test_a_missing_permission_halts_as_forbidden() -> None:
    assert halt_of(403) is Halt.FORBIDDEN


def test_a_proxy_that_wants_a_login_halts() -> None:
    assert halt_of(407) is Halt.PROXY


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
        envelope("Completion chatcmpl-1 not found"),
        envelope("Completion chatcmpl-1 not found", code="404"),
        envelope("litellm.NotFoundError: {'message': 'Completion chatcmpl-1 not found'}"),
        envelope("Conversation with id 'chatcmpl-1' not found."),
        b'{"detail":"Completion chatcmpl-1 not found"}',
        b'{"detail":{"error":"Completion chatcmpl-1 not found"}}',
        b'{"message":"chatcmpl-1: not found"}',
    ],
)
def test_an_absent_completion_is_not_found(status: int, body: bytes) -> None:
    found = said_of(status, body)
    assert (found.kind, found.about, found.foreign) == (Kind.NOT_FOUND, "completion", False)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"", "url"),
        (b"404 page not found", "url"),
        (b"<html><head><title>404 Not Found</title></head><body>chatcmpl-1</body></html>", "url"),
        (envelope("Invalid URL (POST /v2/chat)", kind="invalid_request_error"), "url"),
        (envelope("Invalid URL: chatcmpl-1"), "url"),
        (envelope("Resource not found", code="404"), "unclear"),
        (envelope("Resource not found", code=404), "unclear"),
        (envelope("no such model", code="not_found", param="model"), "unclear"),
        (b'{"statusCode":404,"message":"Resource not found"}', "unclear"),
        (b'{"statusCode":404,"message":"Cannot POST /v1/chat/completions/chatcmpl-1"}', "unclear"),
        (b'{"detail":"no route for chatcmpl-10"}', "unclear"),
        (b'["Completion ID not found"]', "unclear"),
        (b"{}", "unclear"),
    ],
)
def test_any_other_404_halts_as_a_wrong_url(status: int, body: bytes, about: str) -> None:
    assert halt_of(status, body) is Halt.WRONG_URL
    assert said_of(status, body).about == about


@pytest.mark.parametrize("status", [400, 401, 429, 500, 200])
def test_only_a_404_or_410_says_what_is_missing(status: int) -> None:
    assert said_of(status, envelope("Completion chatcmpl-1 not found")).about is None


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    "message",
    ["Completion chatcmpl-2 not found", "Completion chatcmpl-2 not found.", "completion 'chatcmpl-10' was not found"],
)
def test_a_404_about_another_completion_is_foreign(status: int, message: str) -> None:
    found = said_of(status, envelope(message, code="not_found", param="completion_id"))
    assert (found.kind, found.foreign) == (Kind.RETRY, True)
    assert found.error is not None
    assert "but the answer is about another completion: chatcmpl-" in found.error


@pytest.mark.parametrize(
    "message", ["The completion was not found", "Completion ID not found", "no completion not found"]
)
def test_a_word_of_a_sentence_is_not_taken_for_a_completion_id(message: str) -> None:
    assert kind_of(404, envelope(message, code="not_found", param="completion_id")) is Kind.NOT_FOUND


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 520, 524, 599, 999, 100, 101])
def test_passing_failures_are_retried(status: int) -> None:
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
        "billing_hard_limit_reached",
        "budget_exceeded",
        "access_terminated",
    ],
)
@pytest.mark.parametrize("status", [400, 402, 403, 429])
def test_an_exhausted_quota_halts(status: int, code: str) -> None:
    assert halt_of(status, envelope("quota", code=code)) is Halt.QUOTA
    assert halt_of(status, envelope("quota", kind=code)) is Halt.QUOTA


@pytest.mark.parametrize("status", [429, 503])
def test_slow_down_is_part_of_the_verdict(status: int) -> None:
    assert verdict(status, {}, envelope("slower", code="slow_down")).slow_down
    assert verdict(status, {}, envelope("slower", kind="slow_down")).slow_down
    assert not verdict(status, {}, envelope("slower", code="rate_limit_exceeded")).slow_down


def test_x_should_retry_true_turns_a_rejection_into_a_retry() -> None:
    assert kind_of(400, envelope(), x_should_retry="true") is Kind.RETRY
    assert kind_of(400, envelope(), x_should_retry=" True ") is Kind.RETRY


@pytest.mark.parametrize("status", [408, 409])
def test_x_should_retry_false_turns_a_retry_into_a_rejection(status: int) -> None:
    assert kind_of(status, envelope(), x_should_retry="false") is Kind.REJECTED


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_x_should_retry_false_on_a_5xx_is_not_a_rejection(status: int) -> None:
    assert kind_of(status, envelope(), x_should_retry="false") is Kind.RETRY


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
    assert kind_of(200, STORED, x_should_retry=word) is Kind.OK
    assert kind_of(200, b"", x_should_retry=word) is Kind.RETRY


@pytest.mark.parametrize("word", ["", "1", "yes", "maybe"])
def test_another_x_should_retry_says_nothing(word: str) -> None:
    assert kind_of(400, envelope(), x_should_retry=word) is Kind.REJECTED
    assert kind_of(500, envelope(), x_should_retry=word) is Kind.RETRY


def test_every_verdict_has_the_delay_and_rate_limit_of_its_answer() -> None:
    headers = {"retry-after": "7", "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"}
    for status, body in [(200, STORED), (200, b""), (429, envelope()), (503, b"")]:
        found = verdict(status, headers, body, asked=ASKED)
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
    status=st.sampled_from([200, 400, 404]) | st.integers(100, 999) | st.integers(),
    headers=st.dictionaries(HEADER_NAMES, st.text(max_size=30)),
    body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    now=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    sent=st.lists(st.text(max_size=20), max_size=3),
    asked=st.none() | st.text(max_size=3),
)
def test_every_answer_gets_a_verdict(  # noqa: PLR0917 -- hypothesis hands over what it made
    status: int, headers: dict[str, str], body: bytes, now: float | None, sent: list[str], asked: str | None
) -> None:
    found, shown = judge(status, headers, body, asked=asked, secrets=["sk-recognisable"], sent=sent, now=now)
    assert (found.kind is Kind.OK) == (found.error is None)
    assert found.kind is Kind.OK or shown == Shown()
    assert found.kind is Kind.RETRY or not found.foreign
    assert found.kind is Kind.REJECTED or not found.certain
    assert (found.kind is Kind.HALTED) == (found.halt is not None)
    assert found.error is None or (len(found.error) <= 500 and found.error.isprintable())
    assert found.delay_seconds is None or 0 <= found.delay_seconds <= 365 * 86_400
    assert found.request_id is None or (found.request_id.isascii() and found.request_id.isprintable())
    assert all(isinstance(value, str) for value in (shown.metadata or {}).values())


def test_a_page_shows_the_metadata_of_none() -> None:
    for body in (b'{"data":[]}', b'{"data":[],"seed":NaN}'):
        assert judge(200, {}, body) == (Verdict(Kind.OK, 200), Shown())


def test_an_error_is_found_in_json_that_is_read_leniently_as_well() -> None:
    body = b'{"id":"chatcmpl-1","error":{"code":"insufficient_quota"},"seed":NaN}'
    assert said_of(200, body).halt is Halt.QUOTA


def test_an_error_that_says_404_and_no_more_is_about_the_completion_where_the_answer_names_it() -> None:
    assert said_of(200, b'{"id":"chatcmpl-1","error":{"code":404}}').kind is Kind.NOT_FOUND
    assert said_of(200, b'{"error":{"code":404}}').halt is Halt.WRONG_URL


def test_an_error_without_a_code_has_none() -> None:
    assert (said_of(400, envelope()).envelope, said_of(400, envelope()).code) == (True, None)


def test_a_date_to_wait_for_is_relative_to_now() -> None:
    headers = {"retry-after": "Sun, 06 Nov 1994 12:00:30 GMT"}
    assert verdict(503, headers, b"", now=784_123_200.0).delay_seconds == 30.0
    assert verdict(503, headers, b"").delay_seconds is None
