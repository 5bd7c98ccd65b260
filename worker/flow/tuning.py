"""Every constant by which the rate is found and kept, each with the scenario in tests/flow/scenarios that chose it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Constants of `Pacer`, `Course` and `Concurrency`; times in seconds, rates in requests a second.

    Args:
        ramp_per_second_squared: by how much the rate of a search grows each second; the slower, the fewer requests
            run into a window's end ("from nothing to a window of 500 a minute").
        ramp_per_answer: of a request at once, on top with each answer: fast services are searched faster ("from nothing
            to 10000 a minute").
        first_span_seconds: of the first goodput, taken before the first refusal ("from nothing to 3000 a minute").
        saved_seconds: what a service has as a rule saved up before the first refusal (likewise).
        doubling_seconds: after the first refusal the rate doubles in that time, or in as many requests ("from nothing
            to 3000 a minute", "1 a minute without hint").
        seek_from: of the goodput: where that begins ("from nothing to 500 a minute").
        soon_seconds: a refusal sooner than that after an opening is about a rate that is too high by far: it is sought
            once more, `seeks` times at most ("an hour-old limit that was halved since").
        rest_seconds: CUBIC's K: how long it takes to come back to the limit, and as long to get a tenth beyond
            ("bucket of 3000 a minute").
        rest_requests: at a low limit K is so many requests ("bucket of 60 a minute").
        rest_delays: where the service always asks for the same long delay, K is so many of it ("a hint of a minute").
        rest_longest_seconds: of K ("3 a minute").
        depth: the fall at a refusal ("bucket of 3000 a minute", "sliding window of 500 a minute").
        least_depth: the same where K is long ("bucket of 60 a minute").
        growth: beyond the limit after twice K ("bucket, limit doubled").
        span_seconds: of the goodput from which a limit is told that is known: the shorter, the more of what the service
            had saved up is taken for its limit; the longer, the more of what it could not save up is left out.
        span_requests: the same at a low limit ("bucket of 60 a minute").
        short_seconds: open for less than that, little can be measured ("four clients, bucket of 500 a minute").
        short_decrease, few_requests, few_decrease: how far the rate falls then at most, and by a few requests.
        long_delay_seconds: a longer delay is the rest of a window, not the rounding of a header ("window of 60").
        same_delay_seconds: a longer one that comes twice is a habit, and no window ("a hint of a minute").
        old_seconds: a limit that was found longer ago is sought again ("an hour-old limit that was doubled since").
        backoff_seconds: where the service does not say how long to wait: the first, doubling, and the longest ("1 a
            minute without hint").
    """

    ramp: float = 65.0
    ramp_per_answer: float = 0.06
    saved_seconds: float = 1.0
    doubling_seconds: float = 10.0
    doubling_requests: float = 6.0
    seek_from: float = 0.95
    soon_seconds: float = 2.0
    seeks: int = 2
    rest_seconds: float = 20.0
    rest_below: float = 9.0
    rest_power: float = 1.3
    rest_costs: float = 8.0
    rest_longest_seconds: float = 3600.0
    depth: float = 0.06
    least_depth: float = 0.008
    costly_depth: float = 0.1
    growth: float = 0.12
    span_seconds: float = 20.0
    span_requests: float = 60.0
    short_seconds: float = 4.0
    far_off: float = 0.7
    short_decrease: float = 0.97
    few_requests: int = 5
    few_decrease: float = 0.92
    long_delay_seconds: float = 2.0
    same_delay_seconds: float = 5.0
    doubts: int = 2
    doubted_after: int = 20
    old_seconds: float = 600.0
    backoff_requests: float = 2.0
    backoff_seconds: tuple[float, float] = (1.0, 300.0)


TUNING = Tuning()
