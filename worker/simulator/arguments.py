"""The simulator's options as flags of a command."""

import argparse
import re
from collections.abc import Sequence
from typing import get_args

from worker.simulator.options import (
    DEFAULT_TEXT,
    FAULT_KINDS,
    Delay,
    Faults,
    Hint,
    LimitKind,
    Options,
    RateLimit,
    RateLimitHeaders,
    Semantics,
    ThrottleCode,
)

EPILOG = """\
durations: seconds, or with a unit: 250ms, 3s, 5m. A DELAY is one of
  3s        always the same
  1s-6s     any time between, all equally likely
  3.6s~0.3  log-normal: the median, and the standard deviation of the logarithm

kinds of fault:
  internal_error  500                       dropped    connection closed, nothing done
  bad_gateway     502 with HTML             hang       no answer at all
  overloaded      503                       cut_off    done, but half of the answer is missing
  quota           429 insufficient_quota    malformed  done, answered 200 with broken JSON
  unauthorized    401 for a good key        empty      done, answered 200 with nothing
  bare_string     500, error is a string

example: a slow service with a hidden limit, where one update in fifty goes wrong
  metasync simulator --port 8080 --completions 1000 --update-latency 3.6s~0.3 --lag 1s-6s \\
      --limit 500 --fault internal_error=1% --fault cut_off=0.01 --faults-on updates
"""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}
_LIMIT_FLAGS = {
    "limit_kind": "--limit-kind",
    "burst": "--burst",
    "window": "--window",
    "rejects_are_free": "--rejects-are-free",
    "retry_after": "--retry-after",
    "rate_limit_headers": "--rate-limit-headers",
    "throttle_code": "--throttle-code",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare every option of the simulator as a flag."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    # What only shows when all flags are known is reported by the parser too.
    parser.set_defaults(simulator_parser=parser)
    _add_service(parser.add_argument_group("the service"))
    _add_limit(parser.add_argument_group("rate limit"))
    _add_faults(parser.add_argument_group("faults"))


def options_from(namespace: argparse.Namespace) -> Options:
    """The options that the flags order; flags that do not go together end the program with a usage error."""
    given: dict[str, object] = vars(namespace)
    parser: argparse.ArgumentParser = namespace.simulator_parser
    return Options(
        host=namespace.host,
        port=namespace.port,
        api_key=namespace.api_key,
        semantics=namespace.semantics,
        seed=namespace.seed,
        lag_seconds=namespace.lag,
        latency=namespace.latency,
        update_latency=namespace.update_latency,
        limit=_limit_from(parser, namespace, given),
        faults=_faults_from(parser, namespace),
        text=namespace.text,
        model=namespace.model,
        show_metadata=not namespace.hide_metadata,
        rejected_text=namespace.reject,
        quota_code=namespace.quota_code,
        history=namespace.history,
        closed_grace_seconds=namespace.closed_grace,
        completions=namespace.completions,
    )


def _add_service(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument("--port", type=_port, default=0, help="port to listen on (default: a free one)")
    group.add_argument("--api-key", metavar="KEY", help="the only good key (default: any key is)")
    group.add_argument(
        "--completions", type=_count, default=0, metavar="N", help="stored from the start: chatcmpl-000001 and so on"
    )
    group.add_argument(
        "--semantics",
        choices=get_args(Semantics),
        default="replace",
        help="what an update does to pairs that it does not name: drop or keep them (default: %(default)s)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of all that is drawn by lot (default: another each time)")
    group.add_argument(
        "--lag", type=_delay, default=0.0, metavar="DELAY", help="until a created completion is found (default: none)"
    )
    group.add_argument("--latency", type=_delay, default=0.0, metavar="DELAY", help="of every call (default: none)")
    group.add_argument("--update-latency", type=_delay, metavar="DELAY", help="of updates (default: as other calls)")
    group.add_argument("--text", default=DEFAULT_TEXT, help="conversation of the stored completions")
    group.add_argument("--model", default="gpt-4o-2024-08-06", help="of the stored completions (default: %(default)s)")
    group.add_argument("--hide-metadata", action="store_true", help="answers do not show the metadata")
    group.add_argument(
        "--reject", metavar="TEXT", help="reject metadata that has this text in a key or value, with 400"
    )
    group.add_argument(
        "--quota-code",
        default="insufficient_quota",
        metavar="CODE",
        help="of an exhausted quota (default: %(default)s)",
    )
    group.add_argument(
        "--history", type=_count, default=0, metavar="N", help="maps that took effect, kept per completion (default: 0)"
    )
    group.add_argument(
        "--closed-grace",
        type=_duration,
        default=0.1,
        metavar="DURATION",
        help="a request so soon after a retry-after was given does not count against the client (default: 100ms)",
    )


def _add_limit(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--limit", type=_rate, metavar="N", help="requests a minute (default: no limit)")
    group.add_argument("--limit-kind", choices=get_args(LimitKind), help="how they are counted (default: bucket)")
    group.add_argument(
        "--burst", type=_burst, metavar="N", help="capacity of the bucket (default: one second's worth, at least 1)"
    )
    group.add_argument("--window", type=_positive_duration, metavar="DURATION", help="of a window (default: 1m)")
    group.add_argument(
        "--rejects-are-free", action="store_true", help="rejected requests do not use up the limit (default: they do)"
    )
    group.add_argument(
        "--retry-after", choices=get_args(Hint), help="form of the hint in a 429; wrong is too short (default: seconds)"
    )
    group.add_argument(
        "--rate-limit-headers",
        choices=get_args(RateLimitHeaders),
        help="x-ratelimit-*-requests on every answer: none, true, or in the wrong unit (default: none)",
    )
    group.add_argument(
        "--throttle-code", choices=get_args(ThrottleCode), help="error code of a 429 (default: rate_limit_exceeded)"
    )


def _add_faults(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help="let this share of the requests (0.01 or 1%%) go wrong in this way; may be repeated",
    )
    group.add_argument(
        "--faults-on", choices=("all", "updates"), default="all", help="which requests go wrong (default: %(default)s)"
    )
    group.add_argument(
        "--overloaded-retry-after",
        type=_duration,
        metavar="DURATION",
        help="what a 503 tells the client to wait, in whole seconds (default: nothing)",
    )


def _limit_from(
    parser: argparse.ArgumentParser, namespace: argparse.Namespace, given: dict[str, object]
) -> RateLimit | None:
    if namespace.limit is None:
        for name, flag in _LIMIT_FLAGS.items():
            if given[name]:
                parser.error(f"argument {flag}: goes with --limit only")
        return None
    kind: LimitKind = namespace.limit_kind or "bucket"
    if kind == "bucket" and namespace.window is not None:
        parser.error("argument --window: goes with --limit-kind fixed-window or sliding-window only")
    if kind != "bucket" and namespace.burst is not None:
        parser.error("argument --burst: goes with --limit-kind bucket only")
    return RateLimit(
        requests_per_minute=namespace.limit,
        kind=kind,
        burst=namespace.burst,
        window_seconds=namespace.window,
        rejected_count=not namespace.rejects_are_free,
        hint=namespace.retry_after or "seconds",
        headers=namespace.rate_limit_headers or "none",
        code=namespace.throttle_code or "rate_limit_exceeded",
    )


def _faults_from(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> Faults:
    shares: Sequence[tuple[str, float]] = namespace.fault
    try:
        return Faults(
            **dict(shares),
            retry_after_seconds=namespace.overloaded_retry_after,
            updates_only=namespace.faults_on == "updates",
        )
    except ValueError as error:
        parser.error(f"argument --fault: {error}")


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, such as 250ms, 3s or 5m")
    return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]


def _positive_duration(text: str) -> float:
    seconds = _duration(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def _delay(text: str) -> Delay:
    median, tilde, spread = text.partition("~")
    if tilde:
        return Delay(_duration(median), spread=_number(spread))
    least, dash, most = text.partition("-")
    if not dash:
        return Delay(_duration(least))
    try:
        return Delay(_duration(least), up_to_seconds=_duration(most))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: the second duration must not be less than the first") from None


def _number(text: str) -> float:
    if not re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return float(text)


def _rate(text: str) -> float:
    number = _number(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _burst(text: str) -> float:
    number = _number(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def _port(text: str) -> int:
    port = _count(text)
    if port > 65_535:  # noqa: PLR2004 -- the range of TCP ports
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return port


def _fault(text: str) -> tuple[str, float]:
    kind, _, share = text.partition("=")
    if kind not in FAULT_KINDS:
        raise argparse.ArgumentTypeError(f"{kind!r} is no kind of fault; there are {', '.join(FAULT_KINDS)}")
    percent = share.endswith("%")
    number = _number(share.removesuffix("%")) / (100 if percent else 1)
    if number > 1:
        raise argparse.ArgumentTypeError(f"the share {share} is more than all")
    return kind, number
