"""Rate limits over the wire: each kind, hint and header mode, on a clock moved by hand."""

from email.utils import parsedate_to_datetime

import pytest

from tests.simulator.http import Clock, Http, Reply
from worker.simulator import Options, RateLimit, Simulator
from worker.simulator.hints import duration
from worker.simulator.options import Hint, LimitKind


def limited(limit: RateLimit, clock: Clock) -> Simulator:
    simulator = Simulator(Options(limit=limit), clock=clock)
    simulator.seed("chatcmpl-1")
    return simulator


async def statuses(http: Http, simulator: Simulator, count: int) -> list[int]:
    return [(await http.update(simulator, metadata={})).status for _ in range(count)]


@pytest.mark.parametrize("kind", ["bucket", "fixed-window", "sliding-window"])
async def test_what_is_over_the_limit_is_rejected_until_time_has_passed(http: Http, kind: LimitKind) -> None:
    clock = Clock()
    limit = RateLimit(
        60, kind=kind, burst=3 if kind == "bucket" else None, window_seconds=None if kind == "bucket" else 3.0
    )
    async with limited(limit, clock) as simulator:
        assert await statuses(http, simulator, 4) == [200, 200, 200, 429]
        clock.now += 60
        assert await statuses(http, simulator, 4) == [200, 200, 200, 429]
        assert simulator.counters.throttled == 2
        assert simulator.counters.requests == {"update": {200: 6, 429: 2}}
        assert simulator.counters.updates_applied == 6


async def test_all_operations_use_up_the_limit(http: Http) -> None:
    async with limited(RateLimit(60, burst=1), Clock()) as simulator:
        assert (await http.get(simulator)).status == 200
        assert (await http.update(simulator)).status == 429


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "slow_down"])
async def test_a_rejection_has_the_code_that_was_ordered(http: Http, code: str) -> None:
    limit = RateLimit(60, burst=1, code="slow_down" if code == "slow_down" else "rate_limit_exceeded")
    async with limited(limit, Clock()) as simulator:
        await http.update(simulator)
        reply = await http.update(simulator)
        assert (reply.status, reply.error["type"], reply.error["code"]) == (429, "requests", code)


async def rejected(http: Http, hint: Hint) -> tuple[Reply, Clock]:
    """The 429 of a client that has to wait two and a half seconds."""
    clock = Clock()
    async with limited(RateLimit(24, burst=1, rejected_count=False, hint=hint), clock) as simulator:
        await http.update(simulator)
        return await http.update(simulator), clock


async def test_there_may_be_no_hint(http: Http) -> None:
    reply, _ = await rejected(http, "none")
    assert reply.status == 429
    assert not {"retry-after", "retry-after-ms"} & {name.lower() for name in reply.headers}


async def test_the_hint_may_be_in_whole_seconds(http: Http) -> None:
    reply, _ = await rejected(http, "seconds")
    assert reply.headers["retry-after"] == "3"


async def test_the_hint_may_be_in_milliseconds(http: Http) -> None:
    reply, _ = await rejected(http, "ms")
    assert reply.headers["retry-after-ms"] == "2500"
    assert "retry-after" not in reply.headers


async def test_the_hint_may_be_a_date(http: Http) -> None:
    reply, clock = await rejected(http, "date")
    assert parsedate_to_datetime(reply.headers["retry-after"]).timestamp() == clock.now + 3
    assert parsedate_to_datetime(reply.headers["date"]).timestamp() == clock.now


async def test_the_hint_may_be_too_short(http: Http) -> None:
    reply, _ = await rejected(http, "wrong")
    assert reply.headers["retry-after-ms"] == "250"


async def rate_limit_headers(http: Http, limit: RateLimit, count: int) -> list[tuple[str, str, str]]:
    async with limited(limit, Clock()) as simulator:
        headers = [(await http.update(simulator)).headers for _ in range(count)]
    names = [f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")]
    return [(answer[names[0]], answer[names[1]], answer[names[2]]) for answer in headers]


async def test_true_headers_count_by_the_minute(http: Http) -> None:
    limit = RateLimit(60, kind="sliding-window", headers="true")
    assert await rate_limit_headers(http, limit, 2) == [("60", "59", "1m0s"), ("60", "58", "1m0s")]


async def test_true_headers_of_a_bucket_are_scaled_to_the_minute(http: Http) -> None:
    limit = RateLimit(600, burst=10, headers="true")
    expected = [("600", "540", "100ms"), ("600", "480", "200ms")]
    assert await rate_limit_headers(http, limit, 2) == expected


async def test_headers_by_the_second_are_in_the_wrong_unit(http: Http) -> None:
    limit = RateLimit(120, burst=2, headers="per-second")
    expected = [("2", "1", "1"), ("2", "0", "-1"), ("2", "0", "-1")]
    assert await rate_limit_headers(http, limit, 3) == expected


async def test_headers_by_the_day_do_not_see_the_limit_coming(http: Http) -> None:
    limit = RateLimit(1, burst=2, headers="per-day")
    expected = [("1440", "1439", "86400"), ("1440", "1438", "86400"), ("1440", "1438", "86400")]
    assert await rate_limit_headers(http, limit, 3) == expected


async def test_there_are_no_headers_unless_ordered(http: Http) -> None:
    async with limited(RateLimit(60, burst=1), Clock()) as simulator:
        for _ in range(2):
            reply = await http.update(simulator)
            assert not [name for name in reply.headers if name.lower().startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0021, "3ms"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (59.9996, "1m0s"), (360, "6m0s"),
     (90.2, "1m31s"), (5_011, "1h23m31s"), (3_600, "1h0m0s")],
)  # fmt: skip
def test_durations_are_written_as_the_service_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_the_limit_can_be_changed_while_it_runs(http: Http) -> None:
    async with limited(RateLimit(60, burst=1), Clock()) as simulator:
        assert await statuses(http, simulator, 2) == [200, 429]
        simulator.options = Options(limit=RateLimit(60, burst=2))
        assert await statuses(http, simulator, 3) == [200, 200, 429]
        simulator.options = Options(limit=simulator.options.limit, text="other")
        assert await statuses(http, simulator, 1) == [429]
        simulator.options = Options()
        assert await statuses(http, simulator, 3) == [200, 200, 200]


@pytest.mark.parametrize("hint", ["seconds", "ms", "date", "wrong"])
async def test_a_request_during_a_retry_after_is_counted(http: Http, hint: Hint) -> None:
    clock = Clock()
    async with limited(RateLimit(6, burst=1, rejected_count=False, hint=hint), clock) as simulator:
        await http.update(simulator)
        reply = await http.update(simulator)
        told = 1.0 if hint == "wrong" else 10.0
        assert reply.status == 429
        clock.now += 0.05
        await http.update(simulator)
        assert simulator.counters.started_while_closed == 0, "it may have been on its way"
        clock.now += 0.1
        await http.update(simulator)
        assert simulator.counters.started_while_closed == 1
        clock.now += told - 0.2
        await http.get(simulator, "")
        assert simulator.counters.started_while_closed == 2
        clock.now += 10
        await http.update(simulator)
        assert simulator.counters.started_while_closed == 2


async def test_a_503_with_a_retry_after_closes_too(http: Http) -> None:
    clock = Clock()
    async with Simulator(Options(overloaded_retry_after_seconds=2), clock=clock) as simulator:
        simulator.seed("chatcmpl-1")
        simulator.fail_next("overloaded")
        reply = await http.update(simulator)
        assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        clock.now += 1.9
        await http.update(simulator)
        clock.now += 0.1
        await http.update(simulator)
        assert simulator.counters.started_while_closed == 1


async def test_nothing_is_closed_where_no_hint_was_given(http: Http) -> None:
    clock = Clock()
    async with limited(RateLimit(6, burst=1, hint="none"), clock) as simulator:
        for _ in range(3):
            await http.update(simulator)
            clock.now += 1
        assert simulator.counters.throttled == 2
        assert simulator.counters.started_while_closed == 0
