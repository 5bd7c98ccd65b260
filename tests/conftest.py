"""For all tests: where a skipped test is a fault of the machine, it fails."""

import os
from collections.abc import Generator

import pytest

from tests.needs import NOT_PERMITTED

# Set by .ci/run, which installs what the tests use: "fail".
_SKIPS = os.environ.get("METASYNC_TEST_SKIPS")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip, but for what the machine's owner does not permit."""
    report = yield
    if _SKIPS == "fail" and report.skipped and call.excinfo is not None:
        reason = str(call.excinfo.value)
        if NOT_PERMITTED not in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} is skipped, where nothing may be: {reason}"
    return report
