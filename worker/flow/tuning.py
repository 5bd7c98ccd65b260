"""Every constant by which the rate is found and kept, each with the scenario in tests/flow/scenarios that chose it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Constants of `Pacer`, `Course`, `Chance` and `Concurrency`; times in seconds, rates in requests a second."""

    # The search before the first refusal: its rate grows with the root of its age, times this. The slower, the fewer
    # requests run into a window's end ("from nothing to a window of 500 a minute"), the faster, the sooner a high
    # limit is used ("from nothing to 10000 a minute, latency of 4 s").
    ramp: float = 65.0
    # Of a request at once, on top with each answer ("from nothing to 3000 a minute, hint in seconds").
    ramp_per_answer: float = 0.06
    # Of each latency in the mean of them and of their deviation ("a hang of ten seconds"), and of what rate and latency
    # need, how many requests may run at once ("latency of 5 s").
    latency_gain: float = 1 / 32
    headroom: float = 2.0
    # What a service has, as a rule, saved up before a refusal ("from nothing to 3000 a minute, no hint").
    saved_seconds: float = 1.0

    # After the first refusal the rate begins so much below the goodput ("from nothing to 500 a minute") and doubles in
    # that time ("from nothing to 3000 a minute, hint in seconds"), or in as many requests ("1 a minute without hint").
    seek_below: float = 0.05
    doubling_seconds: float = 10.0
    doubling_requests: float = 6.3
    # A refusal sooner than that after an opening is about a rate that is too high by far: the limit is sought once
    # more, so many times at most ("from nothing to a bucket of 500 a minute that holds a minute's worth").
    soon_seconds: float = 2.0
    seeks: int = 2

    # CUBIC's K: how long it takes to come back to the limit ("bucket of 3000 a minute"). Below a rate it is longer, by
    # a power of the ratio ("bucket of 60 a minute"), up to an hour ("3 a minute").
    rest_seconds: float = 20.0
    rest_below: float = 9.0
    rest_power: float = 1.3
    rest_longest_seconds: float = 3600.0
    # And it is so many times what a refusal costs, at least ("a hint of a minute, always").
    rest_costs: float = 8.0
    # The fall at a refusal ("sliding window of 500 a minute"), and where the limit is low ("bucket of 60 a minute").
    depth: float = 0.06
    least_depth: float = 0.008
    # Beyond the limit, so long after it was reached as K is at a high limit ("bucket, limit doubled").
    growth: float = 0.12

    # Of the goodput from which a known limit is told: the shorter, the more of what was saved up is taken for the
    # limit; the longer, the more is left out that could not be saved up. At a low limit, so many requests instead
    # ("bucket of 60 a minute").
    span_seconds: float = 20.0
    span_requests: float = 60.0
    # Open for less than that, or by so few requests, little can be measured: the rate falls to that share at most
    # ("from nothing to 60 a minute, hint in seconds"), unless the goodput is below the last share of it, so that the
    # limit is another one ("bucket, limit a tenth"). After a search in which nothing can be saved up, to the second
    # one ("from nothing to 60 a minute, exact hint").
    short_seconds: float = 4.0
    few_requests: int = 5
    least_decrease: float = 0.97
    few_decrease: float = 0.92
    far_off: float = 0.7
    # A longer delay is the rest of a window, not the rounding of a header ("window of 60 a minute"); a longer one that
    # comes twice is a habit, and no window ("a hint of a minute, always").
    long_delay_seconds: float = 2.0
    same_delay_seconds: float = 5.0

    # So many that were sent after a refused one and got through say that it was not about the rate ("three answers in
    # a thousand by chance"); at a lower rate every refusal is about it ("four clients, bucket of 500 a minute, no
    # hint").
    doubts: int = 2
    doubtful_per_second: float = 4.0
    # The share of refusals by chance: with more, they add up ("three answers in a hundred by chance", "four clients,
    # bucket of 3000 a minute, no hint, refusals cost nothing"), to so many at first ("1 a minute without hint") and at
    # most ("3000 a minute halved, no hint"), or where one below the limit was chance ("three answers in a hundred").
    allowed_share: float = 0.07
    refusals_at_first: float = 0.75
    most_refusals: float = 1.5
    most_refusals_proven: float = 2.5

    # A limit that was found longer ago is sought again ("an hour-old limit that was doubled since").
    old_seconds: float = 600.0
    # Where the service does not say how long to wait: the first wait, doubling, and the longest; at a low limit, as
    # long as so many requests take ("1 a minute without hint").
    backoff_seconds: float = 1.0
    longest_backoff_seconds: float = 300.0
    backoff_requests: float = 2.0


TUNING = Tuning()
