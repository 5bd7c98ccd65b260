"""The simulator's options: semantics, speed, limits and faults, as frozen values and as flags."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from worker.flags import BadValue, Flag, Group
from worker.simulator.delay import Delay, count, delay_of, duration_seconds, duration_text, not_negative, number
from worker.simulator.kinds import Fault, FaultFlags, check_shares

Semantics = Literal["replace", "merge"]
LimitKind = Literal["bucket", "fixed-window", "sliding-window"]
Hint = Literal["none", "seconds", "ms", "date", "wrong"]
RateLimitHeaders = Literal["none", "true", "per-second", "per-day"]
ThrottleCode = Literal["rate_limit_exceeded", "slow_down"]

DEFAULT_TEXT = "Mind of circuits hum, learning patterns in silence: future's quiet spark."


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate limit, and what rejected requests are told.

    A bucket has a burst; fixed and sliding windows have a length, to which the limit is scaled. Rejected requests that
    count take tokens, down to a debt of one whole bucket, or fill the sliding window; a fixed window is full anyway.
    The hint of a 429 is nothing, ``retry-after`` in whole seconds, ``retry-after-ms``, ``retry-after`` as an HTTP date,
    or ``retry-after-ms`` with a tenth of the true value. The headers are true, scaled to the minute; or wrong: per
    second or per day, with resets as plain integers.

    Raises:
        BadValue: a number is out of range, or does not fit the kind.
    """

    requests_per_minute: Annotated[
        float, Flag("requests a minute", name="--limit", metavar="N", parse=number, default="no limit")
    ]
    kind: Annotated[LimitKind, Flag("how they are counted", name="--limit-kind")] = "bucket"
    burst: Annotated[
        float | None,
        Flag("capacity of the bucket", metavar="N", parse=number, default="one second's worth, at least 1"),
    ] = None
    window_seconds: Annotated[
        float | None,
        Flag("length of a window", name="--window", metavar="DURATION", parse=duration_seconds, default="1m"),
    ] = None
    rejected_count: Annotated[
        bool,
        Flag("rejected requests do not use up the limit", name="--rejects-are-free", sets=False, default="they do"),
    ] = True
    hint: Annotated[Hint, Flag("form of the hint in a 429; wrong is too short", name="--retry-after")] = "seconds"
    headers: Annotated[
        RateLimitHeaders,
        Flag("x-ratelimit-*-requests on every answer: none, true, or in the wrong unit", name="--rate-limit-headers"),
    ] = "none"
    code: Annotated[ThrottleCode, Flag("error code of a 429", name="--throttle-code")] = "rate_limit_exceeded"

    def __post_init__(self) -> None:
        _choice("kind", self.kind, get_args(LimitKind))
        _choice("hint", self.hint, get_args(Hint))
        _choice("headers", self.headers, get_args(RateLimitHeaders))
        _choice("code", self.code, get_args(ThrottleCode))
        if not (self.requests_per_minute > 0 and math.isfinite(self.requests_per_minute)):
            raise BadValue("requests_per_minute", "must be more than 0")
        if self.burst is not None and not (self.burst >= 1 and math.isfinite(self.burst)):
            raise BadValue("burst", "must be at least 1")
        if self.burst is not None and self.kind != "bucket":
            raise BadValue("burst", "goes with the kind bucket only")
        if self.window_seconds is not None and not (self.window_seconds > 0 and math.isfinite(self.window_seconds)):
            raise BadValue("window_seconds", "must be more than 0")
        if self.window_seconds is not None and self.kind == "bucket":
            raise BadValue("window_seconds", "goes with the kinds fixed-window and sliding-window only")


_FIGURES = (
    "lag_seconds",
    "stream_seconds",
    "stale_reads_seconds",
    "latency",
    "update_latency",
    "late_seconds",
    "overloaded_retry_after_seconds",
    "trim_values",
    "history",
    "closed_grace_seconds",
    "completions",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The simulated service's properties. They can be replaced at run time, except host and port.

    A request without a key is always refused. Null metadata empties the map under ``replace`` and changes nothing under
    ``merge``. An update takes effect before or after its latency, at random, so that some updates take effect although
    their client gave up. The message of a rejection quotes the metadata. A streamed reply is stored when its last
    chunk was sent, and its lag begins then. Stale gets and lists show and filter by metadata up to ten minutes old,
    drawn for each request; an update's own answer shows the new map. One random number selects among the faults, in
    order: a later fault applies to what earlier ones leave.

    Raises:
        BadValue: a number is out of range.
    """

    host: Annotated[str, Flag("address to listen on")] = "127.0.0.1"
    port: Annotated[int, Flag("port to listen on", parse=count, default="a free one")] = 0
    api_key: Annotated[str | None, Flag("the only valid key", metavar="KEY", default="any key is")] = None
    completions: Annotated[int, Flag("stored at the start: chatcmpl-000001 and so on", metavar="N", parse=count)] = 0
    semantics: Annotated[Semantics, Flag("whether an update drops or keeps the pairs that it does not name")] = (
        "replace"
    )
    seed: Annotated[int | None, Flag("seed of all random draws", metavar="N", default="a new one each time")] = None
    lag_seconds: Annotated[
        Delay | float,
        Flag("time until a created completion is found", name="--lag", metavar="DELAY", parse=delay_of, default="none"),
    ] = 0.0
    stream_seconds: Annotated[
        Delay | float,
        Flag(
            "time from a streamed reply's first chunk to its last, when it is stored",
            name="--stream-time",
            metavar="DELAY",
            parse=delay_of,
            default="none",
        ),
    ] = 0.0
    stale_reads_seconds: Annotated[
        Delay | float,
        Flag(
            "age of the metadata that reads show",
            name="--stale-reads",
            metavar="DELAY",
            parse=delay_of,
            default="none",
        ),
    ] = 0.0
    latency: Annotated[Delay | float, Flag("of every call", metavar="DELAY", parse=delay_of, default="none")] = 0.0
    update_latency: Annotated[
        Delay | float | None, Flag("latency of updates", metavar="DELAY", parse=delay_of, default="as other calls")
    ] = None
    limit: Annotated[RateLimit | None, Group("rate limit")] = None
    faults: Annotated[tuple[Fault, ...], Group("faults", FaultFlags, FaultFlags.faults)] = ()
    late_seconds: Annotated[
        Delay | float,
        Flag(
            "how much later the fault late answers",
            name="--late-by",
            metavar="DELAY",
            parse=delay_of,
            default="10s",
            group="faults",
        ),
    ] = 10.0
    error_200_code: Annotated[str, Flag("error code of the fault error_200", metavar="CODE", group="faults")] = (
        "internal_error"
    )
    overloaded_retry_after_seconds: Annotated[
        float | None,
        Flag(
            "retry-after of a 503, in whole seconds",
            name="--overloaded-retry-after",
            metavar="DURATION",
            parse=duration_seconds,
            default="nothing",
            group="faults",
        ),
    ] = None
    text: Annotated[str, Flag("conversation of the stored completions")] = DEFAULT_TEXT
    model: Annotated[str, Flag("model of the stored completions")] = "gpt-4o-2024-08-06"
    show_metadata: Annotated[bool, Flag("answers do not show the metadata", name="--hide-metadata", sets=False)] = True
    rejected_text: Annotated[
        str | None,
        Flag("reject metadata that has this text in a key or value, with 400", name="--reject", metavar="TEXT"),
    ] = None
    trim_values: Annotated[
        int | None,
        Flag(
            "silently trim white space of stored values and cut them to N characters",
            metavar="N",
            parse=count,
        ),
    ] = None
    quota_code: Annotated[str, Flag("error code of an exhausted quota", metavar="CODE")] = "insufficient_quota"
    history: Annotated[int, Flag("how many earlier maps to keep per completion", metavar="N", parse=count)] = 0
    closed_grace_seconds: Annotated[
        float,
        Flag(
            "a request so soon after a retry-after does not count as a violation",
            name="--closed-grace",
            metavar="DURATION",
            parse=duration_seconds,
            show=duration_text,
        ),
    ] = 0.1

    def __post_init__(self) -> None:
        _choice("semantics", self.semantics, get_args(Semantics))
        for name in _FIGURES:
            figure = getattr(self, name)
            if isinstance(figure, int | float):
                not_negative(name, figure)
        check_shares("faults", self.faults)
        if not 0 <= self.port <= 65_535:  # noqa: PLR2004 -- the range of TCP ports
            raise BadValue("port", "must be from 0 to 65535")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadValue(name, f"must be one of {', '.join(choices)}, not {value!r}")
