"""For all tests: where a skipped test is a fault of the machine, it fails; signals and logs are as at the start."""

import os
import signal
from collections.abc import Generator, Iterator

import pytest
import structlog

from tests.needs import NOT_PERMITTED

# Set by .ci/run, which installs what the tests use: "fail".
_SKIPS = os.environ.get("METASYNC_TEST_SKIPS")

# A shell ignores Ctrl-C for what it starts in the background, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(autouse=True)
def logs_of_this_test_alone() -> Iterator[None]:
    """A command that runs in this process sets the level of the logs, and the next test would miss what is below."""
    yield
    structlog.reset_defaults()
