"""The token bucket: evenly spread, hardly any burst."""

import pytest

from worker.flow.bucket import Bucket


def _has_token(bucket: Bucket) -> bool:
    return bucket.wait_seconds(1.0) == 0.0


def test_a_bucket_gives_one_token_at_first_and_then_one_an_interval() -> None:
    bucket = Bucket(0.0)
    bucket.take()
    bucket.fill(0.1, 2.0)
    assert not _has_token(bucket)
    assert bucket.wait_seconds(2.0) == pytest.approx(0.4)
    bucket.fill(0.5, 2.0)
    assert _has_token(bucket)


def test_an_idle_spell_saves_up_one_token_at_a_low_rate() -> None:
    bucket = Bucket(0.0)
    bucket.fill(100.0, 2.0)
    bucket.take()
    assert not _has_token(bucket)


def test_an_idle_spell_saves_up_a_tenth_of_a_second_at_a_high_rate() -> None:
    bucket = Bucket(0.0)
    bucket.fill(100.0, 200.0)
    for _ in range(21):
        assert _has_token(bucket)
        bucket.take()
    assert not _has_token(bucket)


def test_a_timer_that_fires_late_loses_nothing() -> None:
    bucket = Bucket(0.0)
    bucket.take()
    taken, now = 0, 0.0
    while now < 100.0:
        bucket.fill(now, 8.0)
        wait_seconds = bucket.wait_seconds(8.0)
        if wait_seconds == 0.0:
            bucket.take()
            taken += 1
        else:
            now += wait_seconds + 0.01
    assert taken >= 799


def test_a_fill_returns_for_how_long_there_was_room() -> None:
    bucket = Bucket(0.0)
    bucket.take()
    assert bucket.fill(3.0, 1.0) == pytest.approx(1.1)
    assert bucket.fill(4.0, 1.0) == 0.0
    assert bucket.fill(3.5, 1.0) == 0.0
    bucket.take()
    assert bucket.fill(9.0, 2.0) == pytest.approx(1.1 / 2.0)


def test_a_token_that_was_given_back_may_be_taken_again() -> None:
    bucket = Bucket(0.0)
    bucket.take()
    assert not _has_token(bucket)
    bucket.give_back()
    assert _has_token(bucket)
    bucket.take()
    assert not _has_token(bucket)
    bucket.reset(0.0)
    assert _has_token(bucket)
