"""When may the next request start? A token bucket whose rate finds a hidden limit and stays just below it.

Until the first refusal the rate grows, in a `Search`. A refusal stops all requests for as long as the service asks, and
sets the rate to a little below the limit that it tells. From there the rate follows a `Course`.
"""

import math

from worker.flow.announced import Announced
from worker.flow.bucket import Bucket
from worker.flow.chance import Chance, Doubt
from worker.flow.course import Course, Search
from worker.flow.quota import GrantedQuota
from worker.flow.sent import Sent
from worker.flow.tuning import TUNING

_LOWEST_PER_SECOND = 0.001
_TICK_SECONDS = 0.02  # how often the rate is computed anew
_SLOW_DOWN_SECONDS = 900.0  # for so long a rate is to be lower after a `slow_down`, by OpenAI's guide to error codes

# A service may ask for a day, by mistake or because its clock is wrong. After an hour one request tests whether it
# still means it: all others wait so much longer for the answer.
_LONGEST_CLOSED_SECONDS = 3600.0
_TEST_SECONDS = 10.0


class Pacer:
    """Decides when the next request may start, above all from refusals.

    It reads no clock and rolls no dice: times in seconds and jitter are handed in.

    `begin_at` spares the search where an earlier run has found a limit. `course` is what refusals have taught, None at
    first. `per_second` is the rate at which requests may start now.

    Args:
        now: the time.
        requests_per_minute: a cap that is kept strictly, whatever the service says.
        quota: grants of that cap, where several workers share it; without it, this pacer alone keeps the cap.
    """

    def __init__(
        self, now: float, *, requests_per_minute: float | None = None, quota: GrantedQuota | None = None
    ) -> None:
        self._bucket = Bucket(now)
        self._cap_per_second = math.inf if requests_per_minute is None else requests_per_minute / 60.0
        self._cap = None if requests_per_minute is None else quota or Bucket(now)
        self._announced = Announced()
        self._sent = Sent()
        self._chance = Chance()
        self._search = Search()
        self.course: Course | None = None
        self._told_at = -math.inf  # the refusal of a request that was sent before says nothing new about the rate
        self._cycle_from = now  # since then a limit is measured
        self._opened_at = now
        self._closed_until = -math.inf
        self._asked_until = -math.inf
        self._seconds_closed = 0.0
        self._used_seconds = 0.0  # since the rate was last computed
        self._refused_in_a_row = 0
        self._refused_together = 0  # the latest news, and those that were sent before it was heard
        self._delay_before = 0.0
        self._update(now)

    def begin_at(self, now: float, limit_per_second: float, *, age_seconds: float = 0.0) -> None:
        """Start from a limit that an earlier run found so long ago; an old limit is sought again."""
        self.course = Course(limit_per_second, seeks=age_seconds > TUNING.old_seconds)
        self._update(now)

    def share(self, workers: int) -> None:
        """So many workers, this one included, search together and meet one limit."""
        self._sent.workers = workers

    @property
    def limit_per_second(self) -> float | None:
        """The limit that the latest refusal told, or `begin_at`; None without either."""
        return self.course.limit_per_second if self.course else None

    @property
    def aim_per_second(self) -> float:
        """The rate that is aimed at; infinite while neither a limit nor a cap is known."""
        return self.per_second if self.course else self._held_to

    def rate_per_second(self, now: float) -> float:
        """The rate that is aimed at; while neither a limit nor a cap is known, the rate of late."""
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
        """How much longer the service asks to wait, which may be more than an hour; 0 when it does not."""
        return max(0.0, self._asked_until - now)

    def seconds_closed(self, now: float) -> float:
        """How long the service has kept all requests waiting, in sum."""
        return self._seconds_closed - self.closed_for_seconds(now)

    def wait_seconds(self, now: float) -> float:
        """Seconds until `take` may succeed if nothing else happens; 0 when it would now."""
        if now < self._closed_until:
            return self._closed_until - now
        self._fill(now)
        wait_seconds = self._bucket.wait_seconds(self.per_second)
        if wait_seconds:  # a search grows so fast that the rate is soon another one
            return min(wait_seconds, _TICK_SECONDS) if self._growing and self.course is None else wait_seconds
        # The cap comes last, since to ask a shared quota takes a grant, which is lost if it is not used at once.
        return self._cap.wait_seconds(self._cap_per_second) if self._cap else 0.0

    def take(self, now: float) -> bool:
        """Count a request that starts now, if one may."""
        if self.wait_seconds(now) > 0.0:
            return False
        self._bucket.take()
        if self._cap:
            self._cap.take()
        self._sent.add(now)
        return True

    def take_unpaced(self, now: float) -> None:
        """Count a probe, which starts at any rate."""
        self._sent.add(now)

    def give_back(self, taken_at: float) -> None:
        """Undo `take`: the request was never sent."""
        self._bucket.give_back()
        if self._cap:
            self._cap.give_back()
        self._sent.remove(taken_at)

    def accepted(self, now: float, sent_at: float) -> None:
        """A request got through. It may show that an earlier refusal was one by chance: then the rate is as before."""
        self._refused_in_a_row = 0
        if self.course is None and self._bucket.wait_seconds(self.per_second):  # an unused rate does not grow
            self._search.answered(now - sent_at)
        doubt = self._chance.accepted(sent_at)
        if doubt:
            self._fill(now)
            self.course = doubt.course
            self._cycle_from = doubt.cycle_from if math.isinf(doubt.until) else max(now, self._closed_until)
            self._update(now)

    def none_under_way(self, now: float) -> None:
        """All requests have ended: in a search, the next one may start at once."""
        if self.course is None and self._growing:
            self._fill(now)
            if self._bucket.wait_seconds(self.per_second):
                self._bucket.reset(now)

    def announce(self, now: float, limit: float, remaining: float | None, reset_seconds: float | None) -> None:
        """Take in rate-limit headers, as requests and seconds."""
        self._announced.hear(now, limit, remaining, reset_seconds)
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
            slow_down: the service asks for a lasting decrease, so that the way back to the limit is long.
        """
        self._fill(now)
        self._sent.remove(sent_at)
        if slow_down:  # it means the rate, whatever gets through
            self._chance.limit_met()
        course, cycle_from, in_doubt = self.course, self._cycle_from, self._chance.is_open(sent_at)
        is_news, by_chance = sent_at > self._told_at, False
        if course is not None and not slow_down and (is_news or in_doubt):
            by_chance = self._chance.refused(course, self._recent_per_second(now))
        self._refused_in_a_row += is_news
        self._refused_together = 1 if is_news else self._refused_together + 1
        delay_seconds = _sensible(delay_seconds)
        wait_seconds = self._wait_seconds(delay_seconds)
        if is_news and not in_doubt:
            self._cut(now, sent_at, delay_seconds or 0.0)
            if by_chance and course:
                self._chance.doubt(Doubt(sent_at, math.inf if delay_seconds is None else now, course, cycle_from))
        self._heed_debt(now, delay_seconds or 0.0)
        if delay_seconds is not None or not by_chance:
            self._close(now, wait_seconds + jitter_seconds)
        if slow_down and self.course:
            cost_seconds = _SLOW_DOWN_SECONDS / TUNING.rest_costs
            self.course = Course(self.course.limit_per_second, cost_seconds=cost_seconds)

    def pause(self, now: float, *, delay_seconds: float, jitter_seconds: float) -> None:
        """Wait as a service in trouble asks; that says nothing about the rate."""
        self._fill(now)
        if _sensible(delay_seconds) is not None:
            self._close(now, delay_seconds + jitter_seconds)
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
            self._close(now, delay_seconds + jitter_seconds)

    def _wait_seconds(self, asked_seconds: float | None) -> float:
        """The delay that the service asks for; a backoff where it asks for none, or again and again for too little."""
        if asked_seconds is None:
            # A low limit gives no request in a second, and what was refused may have cost one.
            owed_seconds = TUNING.backoff_requests / self.course.limit_per_second if self.course else 0.0
            return max(min(TUNING.longest_backoff_seconds, owed_seconds), _backoff_seconds(self._refused_in_a_row - 1))
        if self._refused_in_a_row < TUNING.wrong_delays:
            return asked_seconds
        return max(asked_seconds, _backoff_seconds(self._refused_in_a_row - TUNING.wrong_delays))

    def _cut(self, now: float, sent_at: float, delay_seconds: float) -> None:
        """Learn the limit from a refusal, which ends a cycle, and begin the next one."""
        self.course, self._used_seconds = self._learn(now, sent_at, delay_seconds), 0.0
        if self.course is None:  # nothing has got through yet: what is sent while all is refused teaches nothing
            self._search = Search()
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
                self.course = Course(most, seeks=True)
                self._update(now)

    def _learn(self, now: float, sent_at: float, delay_seconds: float) -> Course | None:
        """The course after a refusal; None while nothing is known.

        A refusal shows that the service has nothing saved up. So from one refusal to the next it gave no more than its
        limit: what got through in that time is the least that the limit can be. It gave less where it could not save
        up all that came in during the delay. Then what got through since the end of the delay tells more.
        """
        sent, course = self._sent, self.course
        passed, open_seconds = sent.count(self._opened_at, sent_at), sent_at - self._opened_at
        window_seconds = now + delay_seconds - self._opened_at
        is_minute = abs(window_seconds - 60.0) <= TUNING.minute_margin_seconds
        owed_seconds = 0.0 if is_minute else TUNING.long_delay_requests / self._unheld
        is_long = delay_seconds > max(TUNING.long_delay_seconds, owed_seconds)
        is_habit = is_long and delay_seconds == self._delay_before and delay_seconds > TUNING.same_delay_seconds
        is_window = is_long and not is_habit and window_seconds <= TUNING.longest_window_seconds
        if is_window and passed:
            is_new = course is None or (not course.seeks and passed < TUNING.few_requests)
            return self._found(passed / window_seconds, seeks=is_new)
        if course is None:
            since = sent_at - TUNING.span_seconds
            least = sent.least_limit(since, sent_at, TUNING.saved_seconds)
            return self._found(least, seeks=True) if least else None  # nothing got through, so nothing is known
        least = sent.per_second(self._cycle_from, sent_at)
        if not passed:  # others may use all of the limit for now: seek what is left
            return self._found(least, seeks=True, lowest=TUNING.far_off)
        if passed > 1 or open_seconds < TUNING.short_seconds:
            least = max(least, sent.least_limit(self._opened_at, sent_at, TUNING.saved_seconds))
        if is_habit:
            return self._found(least, cost_seconds=delay_seconds, lowest=TUNING.far_off)
        learn = self._sought if course.seeks else self._kept
        return learn(least, sent_at, now - sent_at)

    def _sought(self, least: float, sent_at: float, cost_seconds: float) -> Course:
        """The course after a refusal that ends a search."""
        if sent_at - self._opened_at < TUNING.soon_seconds:
            return self._found(least, seeks=True)
        # With what was saved up during the delay.
        most = max(least, self._sent.per_second(self._opened_at, sent_at))
        return self._found((least + most) / 2.0, cost_seconds=cost_seconds)

    def _kept(self, least: float, sent_at: float, cost_seconds: float) -> Course:
        """The course after a refusal at a limit that was known."""
        if sent_at - self._opened_at < TUNING.short_seconds:
            if least < TUNING.far_off * self._unheld:
                return self._found(least, seeks=True)
        elif self._sent.count(self._cycle_from, sent_at) >= TUNING.few_requests:
            since = max(self._cycle_from, sent_at - TUNING.span_seconds)
            measured = self._sent.per_second(since, sent_at)
            return self._found(measured, cost_seconds=cost_seconds)
        return self._found(least, lowest=TUNING.least_decrease, cost_seconds=cost_seconds)

    def _found(self, measured: float, *, seeks: bool = False, cost_seconds: float = 0.0, lowest: float = 0.0) -> Course:
        """The course for a limit that was measured, at least such a share of the rate that was refused."""
        if self.course:
            measured = min(self._unheld, max(measured, lowest * self._unheld))
        limit = max(_LOWEST_PER_SECOND, measured)
        return Course(limit, seeks=seeks, cost_seconds=cost_seconds)

    def _recent_per_second(self, now: float, seconds: float = TUNING.recent_seconds) -> float:
        return self._sent.count(now - seconds, now) / seconds

    def _close(self, now: float, seconds: float) -> None:
        self._told_at = now
        self._asked_until = max(self._asked_until, now + seconds)
        until = max(self._closed_until, now + min(seconds, _LONGEST_CLOSED_SECONDS))
        self._seconds_closed += until - max(now, self._closed_until)
        self._closed_until = until

    def _fill(self, now: float) -> None:
        if now < self._closed_until:
            return
        if self._opened_at < self._closed_until:
            self._opened_at = self._closed_until
            is_early = self._asked_until > self._opened_at
            self._bucket.reset(self._opened_at + _TEST_SECONDS if is_early else self._opened_at)
            self._asked_until = self._opened_at
        elapsed_seconds = now - self._bucket.filled_at
        was_short = self._bucket.wait_seconds(self.per_second) > 0.0
        used_seconds = self._bucket.fill(now, self.per_second)
        if elapsed_seconds - used_seconds > TUNING.recent_seconds:  # idle, so that the service has saved up
            self._cycle_from = self._opened_at = now
            if self.course is None:
                self._search = Search()
                self._bucket.reset(now)
        if self._growing and (self.course or was_short):  # a search is used only where requests wait for it
            self._used_seconds += used_seconds
        if self._cap:
            self._cap.fill(now, self._cap_per_second)
        if now >= self._tick_at:
            (self.course or self._search).advance(self._used_seconds)
            self._used_seconds = 0.0
            self._update(now)

    def _update(self, now: float) -> None:
        self._tick_at = now + _TICK_SECONDS
        self._held_to = min(self._announced.ceiling_per_second(now), self._cap_per_second)
        if self.course is None:
            aim, highest = self._search.per_second() / self._sent.workers, math.inf
        else:
            aim, limit = self.course.per_second(), self.course.limit_per_second
            recent_per_second = self._recent_per_second(now, max(TUNING.recent_seconds, TUNING.recent_requests / limit))
            highest = max(limit, 2.0 * recent_per_second)
        self._unheld = max(_LOWEST_PER_SECOND, min(aim, highest))  # what the rate would be without headers and cap
        self._growing = aim < min(highest, self._held_to)
        self.per_second = min(self._unheld, self._held_to)


def _sensible(delay_seconds: float | None) -> float | None:
    return delay_seconds if delay_seconds is not None and 0.0 <= delay_seconds < math.inf else None


def _backoff_seconds(doublings: int) -> float:
    return min(TUNING.longest_backoff_seconds, TUNING.backoff_seconds * 2.0 ** min(max(doublings, 0), 10))
