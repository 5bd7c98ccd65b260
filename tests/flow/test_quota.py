"""Granted permits instead of a worker's own bucket, on a clock that the test moves."""

import math

import pytest

from worker.flow.pacer import Pacer
from worker.flow.quota import GrantedQuota

INTERVAL = 0.1


class _Asked:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def _pacer(asked: _Asked) -> tuple[Pacer, GrantedQuota]:
    quota = GrantedQuota(asked)
    pacer = Pacer(0.0, requests_per_minute=60.0 / INTERVAL, quota=quota)
    pacer.begin_at(0.0, 1_000.0)  # what holds it back is the quota alone
    return pacer, quota


def test_nothing_starts_without_a_permit_and_one_is_asked_for() -> None:
    asked = _Asked()
    pacer, _ = _pacer(asked)
    assert not pacer.take(1.0)
    assert pacer.wait_seconds(1.0) == float("inf")
    assert asked.times >= 1


def test_each_permit_starts_one_request_from_its_time_on() -> None:
    pacer, quota = _pacer(_Asked())
    quota.grant(1.0, 3, INTERVAL)
    assert not pacer.take(0.95)
    assert pacer.wait_seconds(0.95) == pytest.approx(0.05)
    assert pacer.take(1.0)
    assert not pacer.take(1.05)
    assert [pacer.take(1.25) for _ in range(3)] == [True, True, False]  # late, both that are left may start


def test_permits_are_asked_for_when_half_of_a_block_is_used() -> None:
    asked = _Asked()
    pacer, quota = _pacer(asked)
    quota.grant(1.0, 4, INTERVAL)
    assert pacer.take(1.0)
    assert asked.times == 0
    assert pacer.take(1.1)
    assert asked.times == 1


def test_unused_permits_expire() -> None:
    pacer, quota = _pacer(_Asked())
    quota.grant(1.0, 5, INTERVAL)
    assert not pacer.take(3.0)


def test_at_a_lower_rate_expired_permits_are_asked_for_when_the_next_request_is_due() -> None:
    asked = _Asked()
    quota = GrantedQuota(asked)
    pacer = Pacer(0.0, requests_per_minute=60.0 / INTERVAL, quota=quota)
    pacer.begin_at(0.0, 0.25)
    quota.grant(1.0, 5, INTERVAL)
    assert pacer.take(1.0)
    assert not pacer.take(3.0)  # the other four are gone by now
    due_in = pacer.wait_seconds(3.0)
    assert 0.0 < due_in < 10.0
    assert asked.times == 0  # they would go to waste
    assert not pacer.take(3.0 + due_in + 0.01)
    assert asked.times == 1


def test_a_permit_that_was_given_back_can_be_taken_again() -> None:
    pacer, quota = _pacer(_Asked())
    quota.grant(1.0, 1, INTERVAL)
    assert pacer.take(1.0)
    pacer.give_back(1.0)
    assert pacer.take(1.01)
    assert not pacer.take(1.02)


def test_a_permit_may_be_overdue_by_a_second_and_no_longer() -> None:
    quota = GrantedQuota(_Asked())
    quota.grant(1.0, 1, INTERVAL)
    assert quota.wait_seconds() == math.inf  # it does not know the time yet
    quota.fill(2.0)
    assert quota.wait_seconds() == 0.0
    quota.fill(2.1)
    assert quota.wait_seconds() == math.inf


def test_while_a_request_may_start_its_start_alone_asks_for_permits() -> None:
    asked = _Asked()
    quota = GrantedQuota(asked)
    quota.grant(1.0, 2, 0.0)
    quota.fill(1.0)
    quota.take()
    assert asked.times == 1
    assert quota.wait_seconds() == 0.0
    assert asked.times == 1
