"""Every constant by which the rate is found and kept, with the scenario of tests/flow/scenarios that chose it."""

import msgspec


class Tuning(msgspec.Struct, frozen=True):
    """Constants of `Pacer`, `Course`, `Chance` and `Concurrency`; times in seconds, rates in requests a second."""

    # The search before the first refusal. Its rate, after it was used for `age`, is ``ramp * age / sqrt(age + bend)``,
    # and `ramp_steady * age` on top. A slower one runs fewer requests into the end of a window ("from nothing to a
    # window of 500 a minute"), a faster one uses a high limit sooner ("from nothing to 10000 a minute, latency of
    # 4 s"). With a longer bend it begins more slowly ("from nothing to 60 a minute, exact hint").
    ramp: float = 52.0
    ramp_bend_seconds: float = 0.2
    ramp_steady: float = 5.0
    # Each answer opens such a part of a slot on top ("from nothing to 3000 a minute, hint in seconds").
    ramp_per_answer: float = 0.06
    # So many times the requests that rate and latency need may run at once ("latency of 5 s").
    headroom: float = 2.0
    # What a service has usually saved up before a refusal ("from nothing to 3000 a minute, no hint").
    saved_seconds: float = 1.0

    # After the first refusal the rate begins so much below the limit that it tells ("from nothing to 500 a minute").
    seek_below: float = 0.05
    # It doubles in that time ("from nothing to 3000 a minute, hint in seconds"), or in so many requests where that
    # takes longer ("1 a minute without hint").
    doubling_seconds: float = 10.0
    doubling_requests: float = 6.3
    # A refusal so soon after an opening means that the rate is far too high: the limit is sought once more ("from
    # nothing to 60 a minute, exact hint").
    soon_seconds: float = 2.0

    # CUBIC's K, the time until the rate is back at the limit ("bucket of 3000 a minute").
    rest_seconds: float = 20.0
    # Below that rate K is longer, by a power of the ratio ("bucket of 60 a minute"), up to two hours ("1 a minute
    # without hint").
    rest_below: float = 9.0
    rest_power: float = 1.3
    rest_longest_seconds: float = 7200.0
    # K is at least so many times the delay after a refusal ("a hint of a minute, always").
    rest_costs: float = 10.0
    # So much the rate falls at a refusal ("sliding window of 500 a minute"); less where the limit is low, but at least
    # the second figure ("bucket of 60 a minute").
    depth: float = 0.06
    least_depth: float = 0.015
    # So much the rate is beyond the limit after another 20 s ("bucket, limit doubled").
    growth: float = 0.12

    # The span from which a limit is measured. A shorter one takes more of what was saved up for the limit, a longer one
    # leaves out what the service could not save up ("bucket of 3000 a minute").
    span_seconds: float = 20.0
    # After a shorter time, or fewer requests, little is measured, so the rate falls to that share at most ("from
    # nothing to 60 a minute, hint in seconds"). But where the goodput is below the last share of the rate, the limit
    # has changed and is sought ("bucket, limit a tenth").
    short_seconds: float = 4.0
    few_requests: int = 5
    least_decrease: float = 0.97
    far_off: float = 0.7
    # The rate is at most twice the rate of so long, or of so many requests ("bucket of 60 a minute").
    recent_seconds: float = 2.0
    recent_requests: float = 5.0
    # A longer delay is the rest of a window and neither a rounded header ("window of 60 a minute") nor the time of so
    # many requests ("20 a minute"), unless it ends a minute, give or take the third ("window of 5 a minute"), or the
    # window would be longer than the fourth ("a hint of five minutes, always"). A delay longer than the last that comes
    # twice is a habit of the service ("a hint of a minute, always").
    long_delay_seconds: float = 2.0
    long_delay_requests: float = 2.0
    minute_margin_seconds: float = 3.0
    longest_window_seconds: float = 120.0
    same_delay_seconds: float = 5.0

    # A refusal is chance when so many requests get through that were sent after it ("three answers in a thousand by
    # chance"). At a lower rate each refusal is about the rate ("four clients, bucket of 500 a minute, no hint").
    doubts: int = 2
    doubtful_per_second: float = 4.0
    # The share of refusals that may be chance ("three answers in a hundred by chance"; not more, by "four clients,
    # bucket of 3000 a minute, no hint, refusals cost nothing"). What is beyond it adds up to so many at most ("3000 a
    # minute halved, no hint"), or to more once one was chance ("three answers in a hundred by chance").
    allowed_share: float = 0.08
    most_refusals: float = 1.5
    most_refusals_proven: float = 2.5

    # A limit that was found longer ago is sought again ("an hour-old limit that was doubled since").
    old_seconds: float = 600.0
    # Two workers that are refused within this time met the same limit at once ("four workers, bucket of 500 a minute").
    one_event_seconds: float = 2.0
    # The first wait where the service asks for none, and the longest; they double. At a low limit a wait takes as long
    # as so many requests ("1 a minute without hint").
    backoff_seconds: float = 1.0
    longest_backoff_seconds: float = 300.0
    backoff_requests: float = 2.0
    # After so many refusals in a row a delay that the service asks for is too short ("a wrong hint of zero").
    wrong_delays: int = 3


TUNING = Tuning()
