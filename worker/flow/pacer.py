"""When may the next request start? A token bucket whose rate finds a hidden limit and stays just below it.

A refusal stops all requests for as long as the service asks, and sets the rate to a little below the limit that it
tells. From there the rate follows a `Course`.
"""

import math

from worker.flow.announced import Announced
from worker.flow.bucket import Bucket
from worker.flow.chance import Chance, Doubt
from worker.flow.course import Course
from worker.flow.quota import GrantedQuota
from worker.flow.sent import Sent
from worker.flow.tuning import TUNING

_LOWEST_PER_SECOND = 0.001
_TICK_SECONDS = 0.05  # how often the rate is computed anew
_SLOW_DOWN_SECONDS = 60.0

# A service may ask for a day, by mistake or because its clock is wrong. So after an hour one request asks whether the
# delay still holds, and another one each minute until there is an answer.
_LONGEST_CLOSED_SECONDS = 3600.0
_PROBE_SECONDS = 60.0


class Pacer:
    """Decides when the next request may start, above all from refusals.

    It reads no clock and rolls no dice: times in seconds and jitter are handed in.

    Until the first refusal it holds nothing back; the slow start of `Concurrency` searches for the limit. `begin_at`
    spares the search where an earlier run has found a limit. `course` is what refusals have taught, None at first.

    Args:
        now: the time.
        requests_per_minute: a cap that is kept strictly, whatever the service says.
        quota: grants of that cap, where several workers share it; without it, this pacer alone keeps the cap.
    """

    def __init__(
        self, now: float, *, requests_per_minute: float | None = None, quota: GrantedQuota | None = None
    ) -> None:
        self._bucket = Bucket(now, math.inf)
        self._cap_per_second = math.inf if requests_per_minute is None else requests_per_minute / 60.0
        self._cap = quota or Bucket(now, math.inf if requests_per_minute is None else 1.0)
        self._announced = Announced()
        self._sent = Sent()
        self._chance = Chance()
        self.course: Course | None = None
        self._growing = True
        self._unheld = math.inf  # what the rate would be without headers and cap
        self._rate = math.inf

        self._told_at = -math.inf  # the refusal of a request that was sent before says nothing new about the rate
        self._cycle_from = now  # since then a limit is measured: the latest refusal, or the end of an idle spell
        self._opened_at = now
        self._closed_until = -math.inf
        self._asked_until = -math.inf  # later than `_closed_until` where the service asks for more than an hour
        self._slow_until = -math.inf  # until then the rate does not grow
        self._seconds_closed = 0.0
        self._refused_in_a_row = 0
        self._refused_together = 0  # the latest news, and those that were sent before it was heard
        self._delay_before = 0.0
        self._update(now)

    def begin_at(self, now: float, limit_per_second: float, *, age_seconds: float = 0.0) -> None:
        """Start from a limit that an earlier run found so long ago; an old limit is sought again."""
        self.course = Course(limit_per_second, seeks=int(age_seconds > TUNING.old_seconds))
        self._update(now)

    def resume(self, now: float, course: Course | None) -> None:
        """Go on with an earlier course: the refusals since then were not about the rate."""
        self._fill(now)
        self.course = course
        self._update(now)

    @property
    def limit_per_second(self) -> float | None:
        """The limit that the latest refusal told, or `begin_at`; None without either."""
        return self.course.limit_per_second if self.course else None

    @property
    def aim_per_second(self) -> float:
        """The rate that is aimed at; infinite while neither a limit nor a cap is known."""
        return min(self._rate, self._cap_per_second)

    def rate_per_second(self, now: float) -> float:
        """The rate that is aimed at; where nothing holds requests back, the rate of late."""
        aim = self.aim_per_second
        return self._recent_per_second(now) if math.isinf(aim) else aim

    def starts_within(self, now: float, seconds: float) -> int | None:
        """How many requests may start within so many seconds, at least one; None without a limit and a cap.

        Other workers may use a part of the cap, so it is at most twice what started of late.
        """
        aim = self.aim_per_second
        if math.isinf(aim):
            return None
        recent = self._recent_per_second(now)
        return max(1, math.ceil(seconds * (min(aim, 2.0 * recent) if recent else aim)))

    def closed_for_seconds(self, now: float) -> float:
        """How much longer a ``Retry-After`` keeps all requests waiting; 0 when none does."""
        return max(0.0, self._closed_until - now)

    def asked_for_seconds(self, now: float) -> float:
        """How much longer the service asks to wait; a probe may go out before the end."""
        return max(0.0, self._asked_until - now)

    def seconds_closed(self, now: float) -> float:
        """How long the service has kept all requests waiting, in sum."""
        return self._seconds_closed - self.closed_for_seconds(now)

    def wait_seconds(self, now: float) -> float:
        """Seconds until `take` succeeds if nothing else happens; 0 when it would now."""
        if now < self._closed_until:
            return self._closed_until - now
        self._fill(now)
        # The cap comes last, since to ask a shared quota takes a grant, which is lost if it is not used at once.
        return self._bucket.wait_seconds(self._rate) or self._cap.wait_seconds(self._cap_per_second)

    def take(self, now: float) -> bool:
        """Count a request that starts now, if one may."""
        if self.wait_seconds(now) > 0.0:
            return False
        self._bucket.take()
        self._cap.take()
        self._sent.add(now)
        if now < self._asked_until:
            self._stay_closed(now, min(self._asked_until, now + _PROBE_SECONDS))
        return True

    def take_unpaced(self, now: float) -> None:
        """Count a probe, which starts at any rate."""
        self._sent.add(now)

    def give_back(self, taken_at: float) -> None:
        """Undo `take`: the request was never sent."""
        self._bucket.give_back()
        self._cap.give_back()
        self._sent.remove(taken_at)
        if self._is_probe(taken_at):
            self._open(taken_at)

    def accepted(self, now: float, sent_at: float) -> bool:
        """A request got through.

        It may show that an earlier refusal was one by chance. Then what was known before that stays.

        Args:
            sent_at: when it was sent.

        Returns:
            whether it was the probe of a long delay, which it ends.
        """
        self._refused_in_a_row = 0
        doubt = self._chance.accepted(sent_at)
        if doubt:
            if doubt.course:
                doubt.course.reach_limit()
            self.resume(now, doubt.course)
            self._cycle_from = doubt.cycle_from if math.isinf(doubt.until) else max(now, self._closed_until)
        opens = now < self._asked_until and self._is_probe(sent_at)
        if opens:
            self._asked_until = now
            self._open(now)
        return opens

    def announce(self, now: float, limit: float, remaining: float | None, reset_seconds: float | None) -> None:
        """Take in rate-limit headers, as requests and seconds. A higher limit than before is sought again."""
        is_higher = self._announced.hear(now, limit, remaining, reset_seconds)
        if is_higher and self.course and not math.isinf(self._announced.ceiling_per_second(now)):
            self.course = Course(self.course.limit_per_second, seeks=1)
        self._update(now)

    def refused(
        self,
        now: float,
        *,
        sent_at: float,
        delay_seconds: float | None,
        jitter_seconds: float,
        slow_down: bool = False,
    ) -> None:
        """Wait as the service asks, and lower the rate, unless that was done after the request was sent.

        Args:
            sent_at: when the refused request was sent.
            delay_seconds: what the service asks for; None when it does not say.
            jitter_seconds: to wait on top.
            slow_down: the service asks for a lasting decrease, so that the rate does not grow for a minute.
        """
        self._fill(now)
        self._sent.remove(sent_at)
        if self._is_probe(sent_at):  # its answer takes the place of the long delay
            self._asked_until = -math.inf
            self._open(now)
        course, cycle_from, in_doubt = self.course, self._cycle_from, self._chance.is_open(sent_at)
        is_news = sent_at > self._told_at
        by_chance = (is_news or in_doubt) and self._chance.refused(course, self._recent_per_second(now))
        self._refused_in_a_row += is_news
        self._refused_together = 1 if is_news else self._refused_together + 1
        delay_seconds = _sensible(delay_seconds)
        wait_seconds = self._wait_seconds(delay_seconds)
        if is_news and not in_doubt:
            self._cut(now, sent_at, delay_seconds or 0.0)
            if by_chance:
                until = math.inf if delay_seconds is None else now
                self._chance.doubt(Doubt(sent_at, until, course, cycle_from))
        self._heed_debt(now, delay_seconds or 0.0)
        if delay_seconds is not None or not by_chance:
            self._close(now, now + wait_seconds + jitter_seconds)
        if slow_down and self.course:
            self.course = Course(self.course.limit_per_second)
            self._slow_until = now + _SLOW_DOWN_SECONDS

    def pause(self, now: float, *, delay_seconds: float, jitter_seconds: float) -> None:
        """Wait as a service in trouble asks; that says nothing about the rate."""
        self._fill(now)
        if _sensible(delay_seconds) is not None:
            self._close(now, now + delay_seconds + jitter_seconds)
            self._cycle_from = self._closed_until

    def others_refused(self, now: float, *, delay_seconds: float, jitter_seconds: float) -> None:
        """Another worker was refused. All workers together met the limit, so this one's goodput is its share of it.

        Args:
            delay_seconds: the rest of the delay that the service asked for.
        """
        self._fill(now)
        if now - self._told_at > TUNING.one_event_seconds and self._recent_per_second(now) > 0.0:
            self._chance.limit_met()
            self._cut(now, now, delay_seconds)
        if delay_seconds > 0.0:
            self._close(now, now + delay_seconds + jitter_seconds)

    def _wait_seconds(self, asked_seconds: float | None) -> float:
        """The delay that the service asks for; a backoff where it asks for none, or again and again for too little."""
        if asked_seconds is None:
            # A low limit gives no request in a second, and what was refused may have cost one.
            owed_seconds = TUNING.backoff_requests / self.course.limit_per_second if self.course else 0.0
            backoff_seconds = _backoff_seconds(self._refused_in_a_row - 1)
            return min(TUNING.longest_backoff_seconds, max(owed_seconds, backoff_seconds))
        if self._refused_in_a_row < TUNING.wrong_delays:
            return asked_seconds
        return max(asked_seconds, _backoff_seconds(self._refused_in_a_row - TUNING.wrong_delays))

    def _cut(self, now: float, sent_at: float, delay_seconds: float) -> None:
        """Learn the limit from a refusal, which ends a cycle, and begin the next one."""
        self.course = self._learn(now, sent_at, delay_seconds)
        if self._sent.count(self._cycle_from, sent_at):
            self._cycle_from = sent_at
        self._delay_before = delay_seconds
        self._told_at = now
        self._update(now)

    def _heed_debt(self, now: float, delay_seconds: float) -> None:
        """Lower a search that would begin too high, since much was saved up before the refusal.

        Each refused request costs one at most, and the next one needs one more. The service has to take in so many
        within its delay, which may be rounded up to a second. A long delay at once is the rest of a window, no debt.
        """
        course, owed_seconds = self.course, delay_seconds - 1.0
        if course and course.seeks and owed_seconds > 0.0 and self._delay_before <= TUNING.long_delay_seconds:
            most = (self._refused_together + 1) / owed_seconds
            if most < course.limit_per_second:
                self.course = Course(most, seeks=course.seeks)
                self._update(now)

    def _learn(self, now: float, sent_at: float, delay_seconds: float) -> Course | None:
        """The course after a refusal; None while nothing is known.

        A refusal shows that the service has nothing saved up. So from one refusal to the next it gave no more than its
        limit: what got through in that time is the least that the limit can be. It gave less where it could not save
        up all that came in during the delay. Then what got through since the end of the delay tells more.
        """
        sent, course = self._sent, self.course
        passed, open_seconds = sent.count(self._opened_at, sent_at), sent_at - self._opened_at
        is_habit = delay_seconds == self._delay_before and delay_seconds > TUNING.same_delay_seconds
        window_seconds = now + delay_seconds - self._opened_at
        is_window = TUNING.long_delay_seconds < delay_seconds and window_seconds <= TUNING.longest_window_seconds
        if is_window and passed and not is_habit:
            is_new = course is None or (not course.seeks and passed < TUNING.few_requests)
            return self._found(passed / window_seconds, seeks=int(is_new))
        if course is None:
            least = sent.least_limit(sent_at - TUNING.span_seconds, sent_at, TUNING.saved_seconds)
            return self._found(least, seeks=1) if least else None  # nothing got through, so nothing is known
        least = sent.per_second(self._cycle_from, sent_at)
        if not passed:  # others may use all of the limit for now: seek what is left
            return self._found(least, seeks=1, lowest=TUNING.far_off)
        if passed > 1 or open_seconds < TUNING.short_seconds:
            least = max(least, sent.least_limit(self._opened_at, sent_at, TUNING.saved_seconds))
        if is_habit:
            return self._found(least, cost_seconds=delay_seconds, lowest=TUNING.far_off)
        learn = self._sought if course.seeks else self._kept
        return learn(course, least, sent_at, now - sent_at)

    def _sought(self, course: Course, least: float, sent_at: float, cost_seconds: float) -> Course:
        """The course after a refusal that ends a search."""
        if sent_at - self._opened_at < TUNING.soon_seconds and course.seeks <= TUNING.seeks:
            return self._found(least, seeks=course.seeks + 1)
        if self._unheld * TUNING.saved_seconds < TUNING.few_requests:  # hardly any can be saved up
            return self._found(TUNING.few_decrease * self._unheld)
        most = max(least, self._sent.per_second(self._opened_at, sent_at))  # with what was saved up during the delay
        return self._found((least + most) / 2.0, cost_seconds=cost_seconds)

    def _kept(self, course: Course, least: float, sent_at: float, cost_seconds: float) -> Course:
        """The course after a refusal at a limit that was known."""
        is_measured = self._sent.count(self._cycle_from, sent_at) >= TUNING.few_requests
        if is_measured and sent_at - self._opened_at >= TUNING.short_seconds:
            span_seconds = max(TUNING.span_seconds, TUNING.span_requests / course.limit_per_second)
            measured = self._sent.per_second(max(self._cycle_from, sent_at - span_seconds), sent_at)
            return self._found(measured, cost_seconds=cost_seconds)
        if is_measured and least < TUNING.far_off * self._unheld:
            return self._found(least, seeks=1)
        return self._found(least, lowest=TUNING.least_decrease, cost_seconds=cost_seconds)

    def _found(self, measured: float, *, seeks: int = 0, cost_seconds: float = 0.0, lowest: float = 0.0) -> Course:
        """The course for a limit that was measured, at least such a share of the rate that was refused."""
        limit = max(_LOWEST_PER_SECOND, min(self._unheld, max(measured, lowest * self._unheld)))
        return Course(limit, seeks=seeks, cost_seconds=cost_seconds)

    def _recent_per_second(self, now: float, seconds: float = TUNING.recent_seconds) -> float:
        return self._sent.count(now - seconds, now) / seconds

    def _is_probe(self, sent_at: float) -> bool:
        """Whether the request was sent during a delay: only the probe of a long one is."""
        return self._told_at < sent_at < self._asked_until

    def _close(self, now: float, until: float) -> None:
        self._told_at = now
        self._asked_until = max(self._asked_until, until)
        self._stay_closed(now, max(self._closed_until, min(until, now + _LONGEST_CLOSED_SECONDS)))

    def _open(self, now: float) -> None:
        self._stay_closed(now, min(self._closed_until, now))

    def _stay_closed(self, now: float, until: float) -> None:
        self._seconds_closed += max(now, until) - max(now, self._closed_until)
        self._closed_until = until

    def _fill(self, now: float) -> None:
        if now < self._closed_until:
            return
        is_paced = not math.isinf(self._rate)
        if self._opened_at < self._closed_until:
            self._opened_at = self._closed_until
            if is_paced:
                self._bucket.reset(self._opened_at)
        if is_paced:
            elapsed_seconds = now - self._bucket.filled_at
            used_seconds = self._bucket.fill(now, self._rate)
            if elapsed_seconds - used_seconds > TUNING.recent_seconds:  # idle, so that the service has saved up
                self._cycle_from = self._opened_at = now
            if self._growing and self.course and now >= self._slow_until:
                self.course.advance(used_seconds)
        if not math.isinf(self._cap_per_second):
            self._cap.fill(now, self._cap_per_second)
        if now >= self._tick_at:
            self._update(now)

    def _update(self, now: float) -> None:
        self._tick_at = now + _TICK_SECONDS
        ceiling, rate_before = self._announced.ceiling_per_second(now), self._rate
        if self.course is None:
            self._rate = ceiling
        else:
            held_to = min(ceiling, self._cap_per_second)
            aim, limit = self.course.per_second(), self.course.limit_per_second
            recent_per_second = self._recent_per_second(now, max(TUNING.recent_seconds, TUNING.recent_requests / limit))
            highest = max(limit, 2.0 * recent_per_second)
            self._unheld = max(_LOWEST_PER_SECOND, min(aim, highest))
            self._growing = aim < min(highest, held_to)
            self._rate = min(self._unheld, held_to)
        if math.isinf(rate_before) is not math.isinf(self._rate):
            self._bucket.reset(now, math.inf if math.isinf(self._rate) else 1.0)


def _sensible(delay_seconds: float | None) -> float | None:
    return delay_seconds if delay_seconds is not None and 0.0 <= delay_seconds < math.inf else None


def _backoff_seconds(doublings: int) -> float:
    return min(TUNING.longest_backoff_seconds, TUNING.backoff_seconds * 2.0 ** min(max(doublings, 0), 10))
