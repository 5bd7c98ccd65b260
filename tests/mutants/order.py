"""For pytest, as `mutmut` runs it: the tests of the module that has the fault go first, which are likely to fail."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what stands in the file that is named for the module, such as test_fold.py for worker.changes.fold."""
    module = os.environ.get("MUTANT_UNDER_TEST", "").rpartition(".")[0].rpartition(".")[2]
    items.sort(key=lambda item: item.path.stem != f"test_{module}")
