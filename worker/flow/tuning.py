"""Every constant by which the rate is found and kept, each with the scenario in tests/flow/scenarios that chose it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Constants of `Pacer`, `Course` and `Concurrency`; times in seconds, rates in requests a second.

    Args:
        ramp: the rate of a search after a second and more grows with the root of its age, times this; the slower, the
            fewer requests run into a window's end ("from nothing to a window of 500 a minute"), the faster, the sooner
            a high limit is used ("from nothing to 10000 a minute, latency of 4 s").
        ramp_per_answer: of a request at once, on top with each answer ("window of 500 a minute").
        saved_seconds: what a service has, as a rule, saved up before a refusal ("from nothing to 3000 a minute").
        doubling_seconds, doubling_requests: after the first refusal the rate doubles in that time, or in as many
            requests ("from nothing to 3000 a minute, hint in seconds", "1 a minute without hint").
        seek_from: of the goodput: where that begins ("from nothing to 500 a minute").
        soon_seconds, seeks: a refusal sooner than that after an opening is about a rate that is too high by far: the
            limit is sought once more, so many times at most ("... that holds a minute's worth").
        rest_seconds: CUBIC's K: how long it takes to come back to the limit ("bucket of 3000 a minute").
        rest_below, rest_power: below that rate K is longer, by that power of the ratio ("bucket of 60 a minute").
        rest_costs: K is so many times what a refusal costs, at least ("a hint of a minute, always").
        rest_longest_seconds: of K ("3 a minute").
        depth: the fall at a refusal ("bucket of 3000 a minute", "sliding window of 500 a minute").
        least_depth: the same where the limit is low ("bucket of 60 a minute").
        costly_depth: the same where a refusal costs much ("a hint of five minutes, always").
        growth: beyond the limit, 20 s after it was reached ("bucket, limit doubled").
        span_seconds: of the goodput from which a limit is told that is known: the shorter, the more of what the service
            had saved up is taken for its limit; the longer, the more of what it could not save up is left out.
        span_requests: the same at a low limit ("bucket of 60 a minute").
        short_seconds: open for less than that, little can be measured ("four clients, bucket of 500 a minute").
        far_off: of the rate: a goodput below that says that the limit is another one now ("bucket, limit a tenth").
        short_decrease: otherwise the rate falls to that at most ("four clients, bucket of 500 a minute").
        few_requests, few_decrease: by so few requests it falls to that at most ("bucket of 60 a minute").
        long_delay_seconds: a longer delay is the rest of a window, not the rounding of a header ("window of 60").
        same_delay_seconds: a longer one that comes twice is a habit, and no window ("a hint of a minute, always").
        doubts: so many that were sent after a refused one and got through say that it was not about the rate ("three
            answers in a thousand by chance").
        early: before that share of K, the rate is known to be allowed ("one answer in a hundred by chance").
        allowed_share: of refusals by chance: with more, they add up ("three answers in a hundred by chance", "four
            clients, bucket of 3000 a minute, no hint, refusals cost nothing").
        refusals_at_first: that are taken for met before the first: it is chance after a few that got through ("three
            answers in a hundred by chance", "1 a minute without hint").
        most_refusals, most_refusals_proven: in sum, as long as they are chance; the second where one below the limit
            was ("bucket of 3000 a minute halved, no hint", "three answers in a hundred by chance").
        refusals_elsewhere: for how many another worker's counts ("four workers, bucket of 500 a minute, no hint").
        doubtful_per_second: at a lower rate every refusal is about it ("four clients, bucket of 500 a minute, no
            hint").
        old_seconds: a limit that was found longer ago is sought again ("an hour-old limit that was doubled since").
        backoff_seconds: where the service does not say how long to wait: the first, doubling, and the longest ("1 a
            minute without hint").
        backoff_requests: at a low limit, as long as so many take (likewise).
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
    early: float = 0.7
    allowed_share: float = 0.07
    refusals_at_first: float = 0.75
    most_refusals: float = 1.5
    most_refusals_proven: float = 2.5
    refusals_elsewhere: float = 5.0
    doubtful_per_second: float = 4.0
    old_seconds: float = 600.0
    backoff_requests: float = 2.0
    backoff_seconds: tuple[float, float] = (1.0, 300.0)


TUNING = Tuning()
