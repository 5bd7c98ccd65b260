"""The retry budget."""

from worker.flow.budget import RetryBudget


def test_ten_retries_empty_the_budget() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]


def test_ten_successes_bring_back_one_retry() -> None:
    budget = RetryBudget()
    while budget.spend():
        pass
    for _ in range(9):
        budget.succeeded()
    assert not budget.spend()
    budget.succeeded()
    assert budget.spend()
    assert not budget.spend()


def test_successes_do_not_save_up_more_than_ten() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.succeeded()
    assert budget.tokens == 10.0
