"""A queue object's index of the confirmed maps has the latest ones, within its bounds."""

import pytest

from worker.queue import confirmed
from worker.queue.confirmed import LogIndex, LogRow


def test_it_knows_of_no_more_updates_than_it_may_and_lets_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmed, "MAX_UPDATES", 10)
    index = LogIndex(60.0)
    index.learn([LogRow(number, 1_000.0, [f"{number}-a", f"{number}-b"]) for number in range(1, 21)], now=1_000.0)

    assert repr(index) == "<LogIndex [10 updates up to 20]>"
    asked = [f"{number}-a" for number in range(1, 21)]
    assert sorted(index.find(asked, [], since=940.0)) == [16, 17, 18, 19, 20]


def test_what_is_too_old_is_forgotten_with_what_comes() -> None:
    index = LogIndex(60.0)
    index.learn([LogRow(1, 1_000.0, ["c-1"])], now=1_000.0)
    index.learn([LogRow(2, 1_061.0, ["c-2"])], now=1_061.0)

    assert repr(index) == "<LogIndex [1 updates up to 2]>"
    assert index.find(["c-1", "c-2"], [], since=1_001.0) == {2: ["c-2"]}
