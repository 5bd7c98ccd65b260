"""When may the next request start? A token bucket whose rate finds a hidden limit and stays just below it.

A refusal closes the pacer for everybody for as long as the service asked, and sets the rate to a little below the
goodput that was measured; from there it follows `Cubic`.
"""

import math

from worker.flow.announced import Announced
from worker.flow.bucket import Bucket
from worker.flow.cubic import Cubic
from worker.flow.goodput import LONG_DELAY_SECONDS, Goodput
from worker.flow.quota import GrantedQuota

_LOWEST_PER_SECOND = 0.01
_TICK_SECONDS = 0.05  # how often the rate is computed anew
_IDLE_SECONDS = 2.0

# Over how long the goodput is measured: the shorter, the more of what the service had saved up is taken for its limit;
# the longer, the more of what it could not save up is left out.
_SPAN_SECONDS = 20.0
_UNSETTLED_SPAN_SECONDS = 10.0
_LONGEST_SPAN_SECONDS = 120.0
_SPAN_REQUESTS = 60.0
_LOW_PER_SECOND = _SPAN_REQUESTS / _SPAN_SECONDS
_RISING = 1.2  # times the limit that was known: the rate was no steady one

# Where little can be measured, the limit falls by so much at most.
_SHORT_SECONDS = 4.0
_SHORT_DECREASE = 0.7
_SHORT_UNSETTLED_DECREASE = 0.3
_FEW_REQUESTS = 5
_FEW_DECREASE = 0.8
_FAR_OFF = 0.7

_CREDIT = 0.7  # of what could have been sent while closed
_CREDIT_SECONDS = 1.0
_CREDIT_LOWEST = 0.02
_CREDIT_REGAINED = 0.01
_OVERDRAWN_SECONDS = 1.0

_DEFAULT_DELAY_SECONDS = 1.0
_LONGEST_DEFAULT_SECONDS = 60.0
_WRONG_DELAYS = 3  # refusals in a row with nothing accepted between them

# Two workers that are refused within this time met the same limit at the same moment.
_ONE_EVENT_SECONDS = 2.0

_SLOW_DOWN_SECONDS = 60.0
_SLOW_DOUBLING_SECONDS = 60.0


class Pacer:
    """Decides, from refusals above all, when the next request may start.

    It reads no clock and rolls no dice: times in seconds and jitter are handed in.

    Args:
        now: the time.
        requests_per_minute: a cap that is kept strictly, whatever the service says.
        quota: what other workers leave of that cap, where it is kept together; without it, this pacer alone keeps it.

    Until the first refusal it holds nothing back: a slow start of concurrency searches for the limit. Where an earlier
    run has found one, `begin_at` spares the search.
    """

    def __init__(
        self,
        now: float,
        *,
        requests_per_minute: float | None = None,
        quota: GrantedQuota | None = None,
    ) -> None:
        self._bucket = Bucket(now)
        self._cap = quota or Bucket(now)
        self._cap_per_second = math.inf if requests_per_minute is None else requests_per_minute / 60.0
        self._announced = Announced()
        self._goodput = Goodput(now)
        self._cubic: Cubic | None = None
        self._growing = True
        self._unheld = math.inf  # the rate, were there neither headers nor a cap
        self._rate = math.inf

        self._cut_at = -math.inf
        self._opened_at = now
        self._closed_from = now
        self._closed_until = -math.inf
        self._seconds_closed = 0.0
        self._refused_in_a_row = 0
        self._credit = _CREDIT
        self._blamed_credit = False
        self._slow_until = -math.inf
        self._slow_per_second = math.inf
        self._update(now)

    def begin_at(self, now: float, limit_per_second: float) -> None:
        """Start from a limit that an earlier run has found."""
        self._cubic = Cubic(limit_per_second, settled=True)
        self._update(now)

    @property
    def limit_per_second(self) -> float | None:
        """The goodput at the last refusal, before the first what `begin_at` was told; None if neither is known."""
        return self._cubic.limit_per_second if self._cubic else None

    @property
    def course(self) -> Cubic | None:
        """What refusals have taught so far, to be handed to `resume`."""
        return self._cubic

    def resume(self, now: float, course: Cubic | None) -> None:
        """Go on as before: the refusals since then were about one completion, and not about the rate."""
        self._fill(now)
        self._cubic = course
        self._update(now)

    @property
    def aim_per_second(self) -> float:
        """The rate that is aimed at; infinite while neither a limit nor a cap is known."""
        return min(self._rate, self._cap_per_second)

    def rate_per_second(self, now: float) -> float:
        """The rate that is aimed at, or what was really sent of late where nothing holds it back."""
        aim = self.aim_per_second
        return self._goodput.recent_per_second(now) if math.isinf(aim) else aim

    def closed_for_seconds(self, now: float) -> float:
        """How much longer a ``Retry-After`` keeps everybody waiting; 0 when none does."""
        return max(0.0, self._closed_until - now)

    def seconds_closed(self, now: float) -> float:
        """How long the service kept everybody waiting so far, in sum."""
        return self._seconds_closed - self.closed_for_seconds(now)

    def wait_seconds(self, now: float) -> float:
        """Seconds until `take` succeeds if nothing else happens; 0 when it would now."""
        if now < self._closed_until:
            return self._closed_until - now
        self._fill(now)
        wait_seconds = 0.0 if math.isinf(self._rate) else self._bucket.wait_seconds(self._rate)
        if math.isinf(self._cap_per_second):
            return wait_seconds
        cap_seconds = self._cap.wait_seconds(self._cap_per_second)
        if math.isinf(cap_seconds) and wait_seconds > 0.0:
            return wait_seconds  # no permit is there, and none was asked for as yet: `take` does so then
        return max(wait_seconds, cap_seconds)

    def take(self, now: float) -> bool:
        """Count a request that starts now, if one may."""
        if now < self._closed_until:
            return False
        self._fill(now)
        paced, capped = not math.isinf(self._rate), not math.isinf(self._cap_per_second)
        if (paced and not self._bucket.has_token()) or (capped and not self._cap.has_token()):
            return False
        if paced:
            self._bucket.take()
        if capped:
            self._cap.take()
        self._goodput.sent(now)
        return True

    def take_unpaced(self, now: float) -> None:
        """Count a request that starts now without asking: a probe."""
        self._goodput.sent(now)

    def give_back(self, taken_at: float) -> None:
        """Undo `take`: the request was never sent."""
        if not math.isinf(self._rate):
            self._bucket.give_back()
        if not math.isinf(self._cap_per_second):
            self._cap.give_back()
        self._goodput.never_sent(taken_at)

    def accepted(self) -> None:
        """A request got through."""
        self._refused_in_a_row = 0

    def announce(self, now: float, limit: float, remaining: float | None, reset_seconds: float | None) -> None:
        """Take in rate-limit headers: requests, requests, seconds."""
        change = self._announced.hear(now, limit, remaining, reset_seconds)
        if change != 1.0 and self._cubic and not math.isinf(self._announced.ceiling_per_second(now)):
            # What was found moves along with what is announced, even where the two are different limits.
            self._cubic.scale(min(2.0, max(0.5, change)))
        self._update(now)

    def refused(
        self,
        now: float,
        *,
        sent_at: float,
        delay_seconds: float | None,
        jitter_seconds: float,
        slow_down: bool = False,
    ) -> bool:
        """Close for everybody, and lower the rate unless that was done after the request had been sent.

        Args:
            sent_at: when the refused request was sent.
            delay_seconds: what the service asked for; None when it did not say.
            jitter_seconds: to wait on top.
            slow_down: the service asked for a lasting decrease: no growth for a minute, then slowly.

        Returns:
            whether the rate was far off, so that a slow start is due.
        """
        self._fill(now)
        first_of_epoch = sent_at > self._cut_at
        self._goodput.refused(sent_at, in_cycle=first_of_epoch)
        if first_of_epoch:
            self._refused_in_a_row += 1
        delay_seconds = self._delay_seconds(delay_seconds)
        far_off = first_of_epoch and self._cut(now, sent_at, delay_seconds)
        self._close(now, now + delay_seconds + jitter_seconds)
        if slow_down:
            self._slow_until = now + _SLOW_DOWN_SECONDS
            self._slow_per_second = self._rate
        return far_off

    def pause(self, now: float, *, delay_seconds: float, jitter_seconds: float) -> None:
        """Close for everybody, without a word about the rate."""
        self._fill(now)
        if 0.0 <= delay_seconds < math.inf:
            self._close(now, now + delay_seconds + jitter_seconds)

    def others_refused(self, now: float, *, delay_seconds: float, jitter_seconds: float) -> None:
        """Another worker on the same quota was refused.

        What all of them sent was the limit, so that this one's goodput is its part of it.

        Args:
            delay_seconds: what is left of what the service asked for.
        """
        self._fill(now)
        if now - self._cut_at > _ONE_EVENT_SECONDS and self._goodput.recent_per_second(now) > 0.0:
            self._cut(now, now, delay_seconds)
        if delay_seconds > 0.0:
            self._close(now, now + delay_seconds + jitter_seconds)

    def _delay_seconds(self, asked_seconds: float | None) -> float:
        """The service's word; a backoff where there is none, and where it has proved to be too short."""
        if asked_seconds is None or not 0.0 <= asked_seconds < math.inf:
            return _backoff_seconds(self._refused_in_a_row - 1)
        if self._refused_in_a_row < _WRONG_DELAYS:
            return asked_seconds
        return max(asked_seconds, _backoff_seconds(self._refused_in_a_row - _WRONG_DELAYS))

    def _cut(self, now: float, sent_at: float, delay_seconds: float) -> bool:
        cubic, open_seconds = self._cubic, sent_at - self._opened_at
        short, windowed = open_seconds < _SHORT_SECONDS, delay_seconds > LONG_DELAY_SECONDS
        measured = self._measure(now, sent_at, delay_seconds, short=short)
        overdrawn = self._overdraws(open_seconds)
        if cubic and cubic.settled and short and not windowed:
            self._blamed_credit = overdrawn and not self._blamed_credit
            self._cubic = cubic.again() if self._blamed_credit else cubic.set_back(min(self._unheld, measured))
        else:
            self._blamed_credit = False
            limit = max(_LOWEST_PER_SECOND, min(self._unheld, measured))
            self._cubic = Cubic(limit, settled=windowed or not (cubic is None or short))
        far_off = cubic is None or (short and measured < _FAR_OFF * self._unheld)
        self._goodput.begin_cycle(sent_at)
        self._cut_at = now
        self._update(now)
        return far_off

    def _overdraws(self, open_seconds: float) -> bool:
        """Whether a refusal came while credit was spent; the credit adapts to what the service saves up."""
        if self._opened_at > self._cut_at and open_seconds < _OVERDRAWN_SECONDS and self._credit > 0.0:
            self._credit = self._credit / 2.0 if self._credit > _CREDIT_LOWEST else 0.0
            return True
        if open_seconds >= _SHORT_SECONDS:
            self._credit = min(_CREDIT, self._credit + _CREDIT_REGAINED)
        return False

    def _measure(self, now: float, sent_at: float, delay_seconds: float, *, short: bool) -> float:
        """The goodput, by the measure that fits what was going on."""
        goodput, cubic, held = self._goodput, self._cubic, self._rate < self._unheld
        window = goodput.window(now, sent_at, opened_at=self._opened_at, delay_seconds=delay_seconds)
        if cubic is None:
            if window is not None:
                return window
            if not held:
                return goodput.search(now, sent_at, delay_seconds)
            return goodput.cycle(now, sent_at, _UNSETTLED_SPAN_SECONDS)
        if window is not None:
            measured = window
        elif not cubic.settled:
            measured = goodput.cycle(now, sent_at, _UNSETTLED_SPAN_SECONDS)
        elif self._unheld < _RISING * cubic.limit_per_second and cubic.limit_per_second < _LOW_PER_SECOND:
            measured = goodput.cycle(now, sent_at, min(_LONGEST_SPAN_SECONDS, _SPAN_REQUESTS / cubic.limit_per_second))
        else:
            measured = goodput.cycle(now, sent_at, _SPAN_SECONDS)
        lowest = 0.0
        if short:
            lowest = _SHORT_DECREASE if cubic.settled else _SHORT_UNSETTLED_DECREASE
        if held or goodput.sent_in_cycle < _FEW_REQUESTS:  # that measured the brake, or chance
            lowest = _FEW_DECREASE
        return max(measured, lowest * self._unheld)

    def _close(self, now: float, until: float) -> None:
        if until <= self._closed_until:
            return
        if now >= self._closed_until:
            self._closed_from = now
        self._seconds_closed += until - max(now, self._closed_until)
        self._closed_until = until

    def _open(self) -> None:
        """Start with most of what could have been sent while it was closed, so that closing costs little."""
        self._opened_at = self._closed_until
        credit_seconds = min(self._credit * (self._closed_until - self._closed_from), _CREDIT_SECONDS)
        self._bucket.reset(self._opened_at, self._rate * credit_seconds)

    def _fill(self, now: float) -> None:
        if now < self._closed_until:
            return
        if self._opened_at < self._closed_until:
            self._open()
        if not math.isinf(self._rate):
            elapsed_seconds = now - self._bucket.filled_at
            used_seconds = self._bucket.fill(now, self._rate)
            if elapsed_seconds - used_seconds > _IDLE_SECONDS:  # the service has saved up: what follows is new
                self._goodput.begin_cycle(now)
                self._opened_at = now
            if self._growing and self._cubic:
                self._cubic.advance(used_seconds)
        if not math.isinf(self._cap_per_second):
            self._cap.fill(now, self._cap_per_second)
        if now >= self._tick_at:
            self._update(now)

    def _update(self, now: float) -> None:
        self._tick_at = now + _TICK_SECONDS
        held_to = min(self._announced.ceiling_per_second(now), self._cap_per_second)
        if self._cubic is None:
            if math.isinf(self._rate):
                self._bucket.reset(now, 1.0)
            self._rate = self._announced.ceiling_per_second(now)
            return
        aim = self._cubic.per_second()
        highest = max(self._cubic.limit_per_second, 2.0 * self._goodput.recent_per_second(now))
        if now < self._slow_until:
            highest = min(highest, self._slow_per_second)
        elif not math.isinf(self._slow_per_second):
            doublings = (now - self._slow_until) / _SLOW_DOUBLING_SECONDS
            highest = min(highest, self._slow_per_second * 2.0 ** min(doublings, 100.0))
        self._unheld = max(_LOWEST_PER_SECOND, min(aim, highest))
        self._growing = aim < min(highest, held_to)
        self._rate = min(self._unheld, held_to)


def _backoff_seconds(doublings: int) -> float:
    return min(_LONGEST_DEFAULT_SECONDS, _DEFAULT_DELAY_SECONDS * 2.0 ** min(max(doublings, 0), 10))
