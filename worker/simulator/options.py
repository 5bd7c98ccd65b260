"""What can be ordered of the simulator: its meaning, speed, limits and faults, as frozen values."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from random import Random
from typing import Literal, get_args

Semantics = Literal["replace", "merge"]
LimitKind = Literal["bucket", "fixed-window", "sliding-window"]
Hint = Literal["none", "seconds", "ms", "date", "wrong"]
RateLimitHeaders = Literal["none", "true", "per-second", "per-day"]
ThrottleCode = Literal["rate_limit_exceeded", "slow_down"]
FaultKind = Literal[
    "internal_error",
    "bad_gateway",
    "overloaded",
    "quota",
    "unauthorized",
    "bare_string",
    "dropped",
    "hang",
    "cut_off",
    "malformed",
    "empty",
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

DEFAULT_TEXT = "Mind of circuits hum, learning patterns in silence: future's quiet spark."


@dataclass(frozen=True, slots=True)
class Delay:
    """A time to wait, drawn anew each time: fixed, uniform or log-normal.

    Args:
        seconds: the delay; with `up_to_seconds` the least one, with `spread` the median.
        up_to_seconds: the greatest one; all between are equally likely.
        spread: standard deviation of the logarithm; with 0.3, nine in ten lie between 0.61 and 1.64 medians.

    Raises:
        ValueError: a figure is negative or not finite, the range is upside down, or both forms are mixed.
    """

    seconds: float = 0.0
    up_to_seconds: float | None = None
    spread: float = 0.0

    def __post_init__(self) -> None:
        _not_negative("seconds", self.seconds)
        _not_negative("spread", self.spread)
        if self.up_to_seconds is not None:
            _not_negative("up_to_seconds", self.up_to_seconds)
            if self.up_to_seconds < self.seconds:
                raise ValueError("up_to_seconds must not be less than seconds")
            if self.spread:
                raise ValueError("a delay has either up_to_seconds or spread, not both")

    def draw(self, random: Random) -> float:
        """One delay, in seconds."""
        if self.up_to_seconds is not None:
            return random.uniform(self.seconds, self.up_to_seconds)
        if self.spread:
            return self.seconds * random.lognormvariate(0.0, self.spread)
        return self.seconds


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests are let through, and what the rejected ones are told.

    Args:
        requests_per_minute: of all operations together.
        kind: a token bucket, windows that follow one another, or a window that slides.
        burst: capacity of the bucket; one second's worth, and at least one, by default. Windows have none.
        window_seconds: length of a window; the limit is scaled to it. Buckets have none.
        rejected_count: whether rejected requests use up the limit too: they take tokens, down to a debt of one
            whole bucket, or stand in the sliding window. A fixed window is full either way.
        hint: what a 429 says about when to come back: nothing, ``retry-after`` in whole seconds,
            ``retry-after-ms``, ``retry-after`` as an HTTP date, or ``retry-after-ms`` with a tenth of the truth.
        headers: ``x-ratelimit-*-requests`` on every answer: none; the truth, scaled to the minute; or counted by
            the second or the day, neither being what is enforced, with resets as plain integers.
        code: error code of a 429.

    Raises:
        ValueError: a figure is out of range, or does not go with the kind.
    """

    requests_per_minute: float
    kind: LimitKind = "bucket"
    burst: float | None = None
    window_seconds: float | None = None
    rejected_count: bool = True
    hint: Hint = "seconds"
    headers: RateLimitHeaders = "none"
    code: ThrottleCode = "rate_limit_exceeded"

    def __post_init__(self) -> None:
        _choice("kind", self.kind, get_args(LimitKind))
        _choice("hint", self.hint, get_args(Hint))
        _choice("headers", self.headers, get_args(RateLimitHeaders))
        _choice("code", self.code, get_args(ThrottleCode))
        if not (self.requests_per_minute > 0 and math.isfinite(self.requests_per_minute)):
            raise ValueError("requests_per_minute must be more than 0")
        if self.burst is not None and not (self.burst >= 1 and math.isfinite(self.burst)):
            raise ValueError("burst must be at least 1")
        if self.burst is not None and self.kind != "bucket":
            raise ValueError("burst goes with the kind bucket only")
        if self.window_seconds is not None and not (self.window_seconds > 0 and math.isfinite(self.window_seconds)):
            raise ValueError("window_seconds must be more than 0")
        if self.window_seconds is not None and self.kind == "bucket":
            raise ValueError("window_seconds goes with the kinds fixed-window and sliding-window only")


@dataclass(frozen=True, slots=True)
class Faults:
    """Which share of the requests goes wrong, by kind of fault; each share is from 0 to 1, as is their sum.

    Args:
        internal_error: 500 with the usual envelope.
        bad_gateway: 502 with a proxy's HTML page.
        overloaded: 503, code ``server_is_overloaded``.
        quota: 429, code ``insufficient_quota``.
        unauthorized: 401, code ``invalid_api_key``, though the key is good.
        bare_string: 500 whose ``error`` is a string, not an object.
        dropped: the connection is closed before anything is done.
        hang: no answer, until the client goes away.
        cut_off: the request is carried out, but half of the answer is missing when the connection closes.
        malformed: carried out, answered 200 with half of a JSON text.
        empty: carried out, answered 200 with nothing.
        retry_after_seconds: what a 503 tells the client to wait; None: nothing.
        updates_only: spare all other operations.

    Raises:
        ValueError: a share or the sum of them is out of range, or the delay is negative.
    """

    internal_error: float = 0.0
    bad_gateway: float = 0.0
    overloaded: float = 0.0
    quota: float = 0.0
    unauthorized: float = 0.0
    bare_string: float = 0.0
    dropped: float = 0.0
    hang: float = 0.0
    cut_off: float = 0.0
    malformed: float = 0.0
    empty: float = 0.0
    retry_after_seconds: float | None = None
    updates_only: bool = False

    def __post_init__(self) -> None:
        for kind, share in self.shares():
            if not 0 <= share <= 1:
                raise ValueError(f"the share of {kind} must be from 0 to 1, not {share}")
        if self.total > 1 + 1e-9:
            raise ValueError(f"the shares of all faults come to {self.total:g}, more than 1")
        if self.retry_after_seconds is not None:
            _not_negative("retry_after_seconds", self.retry_after_seconds)

    @property
    def total(self) -> float:
        """The share of requests that go wrong in one way or another."""
        return sum(share for _, share in self.shares())

    def shares(self) -> Iterator[tuple[FaultKind, float]]:
        """Each kind of fault with its share."""
        for kind in FAULT_KINDS:
            yield kind, getattr(self, kind)

    def draw(self, random: Random) -> FaultKind | None:
        """The fault of one request; None as a rule."""
        point = random.random()
        for kind, share in self.shares():
            point -= share
            if point < 0:
                return kind
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the simulated service is like. May be replaced at run time; host and port stay as they were bound.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        api_key: the only good key; None takes any. A request without one is refused either way.
        semantics: what an update does to the pairs that it does not name: ``replace`` drops them, ``merge``
            keeps them. A metadata of null empties the map under ``replace`` and changes nothing under ``merge``.
        seed: of everything that is drawn by lot; None: another one each time.
        lag_seconds: how long a completion that is created over HTTP is not found.
        latency: time that a call takes, in seconds or drawn from a distribution.
        update_latency: time that an update takes; None: as any call. The update takes effect before or after it,
            by lot, so that of the updates that a client gives up on some take effect and some do not.
        limit: the rate limit; None: there is none.
        faults: what goes wrong, and how often.
        text: the conversation of the stored completions, and the reply to new ones.
        model: of the completions that are seeded.
        show_metadata: whether answers have the ``metadata`` field.
        rejected_text: metadata with this text in a key or value is rejected by a rule of the service's own, and
            the message quotes it; None: there is no such rule.
        quota_code: error code of an exhausted quota.
        history: how many maps that took effect are kept per completion; 0: none.
        closed_grace_seconds: a request that comes so shortly after a retry-after was given may have been on its
            way already, and is not held against the client.
        completions: how many stored completions there are from the start: ``chatcmpl-000001`` and so on.

    Raises:
        ValueError: a figure is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None
    semantics: Semantics = "replace"
    seed: int | None = None
    lag_seconds: Delay | float = 0.0
    latency: Delay | float = 0.0
    update_latency: Delay | float | None = None
    limit: RateLimit | None = None
    faults: Faults = Faults()
    text: str = DEFAULT_TEXT
    model: str = "gpt-4o-2024-08-06"
    show_metadata: bool = True
    rejected_text: str | None = None
    quota_code: str = "insufficient_quota"
    history: int = 0
    closed_grace_seconds: float = 0.1
    completions: int = 0

    def __post_init__(self) -> None:
        _choice("semantics", self.semantics, get_args(Semantics))
        for name in ("lag_seconds", "latency", "update_latency"):
            delay = getattr(self, name)
            if isinstance(delay, int | float):
                _not_negative(name, delay)
        for name in ("history", "completions", "closed_grace_seconds"):
            _not_negative(name, getattr(self, name))
        if not 0 <= self.port <= 65_535:  # noqa: PLR2004 -- the range of TCP ports
            raise ValueError("port must be from 0 to 65535")


def draw_seconds(delay: Delay | float, random: Random) -> float:
    """One delay, in seconds."""
    return delay.draw(random) if isinstance(delay, Delay) else delay


def field_names(kind: type[Options | RateLimit | Faults]) -> frozenset[str]:
    """The names of what can be ordered."""
    return frozenset(field.name for field in fields(kind))


def _not_negative(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be 0 or more, not {value}")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
