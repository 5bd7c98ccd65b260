"""For all tests: the order, skips that are faults of the machine, signals and logs as at the start."""

import gc
import importlib
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import suppress

import pytest
import structlog

from tests.needs import NOT_PERMITTED

# Set by .ci/run, which installs what the tests use: "fail".
_SKIPS = os.environ.get("METASYNC_TEST_SKIPS")

# These tests wait most of the time, for processes and clocks.
_WAITING = ("tests/benchmarks/", "tests/chaos/", "tests/e2e/")
_BY_THE_END = 0.75  # of a worker's part, so that its last tests are short ones
# Each worker that gets one of these starts a browser: they come first, since the last tests go to all workers.
_BROWSER = "tests/web/"

# All that collecting makes stays until the end: to look for garbage in it would take a quarter of the time.
gc.disable()

# A shell ignores Ctrl-C for what it starts in the background, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection(session: pytest.Session) -> None:
    """Begin with other files in each worker, so that the workers share what a fresh clone needs once.

    pytest rewrites the asserts of each test file at its first import. Workers that go through the files in the same
    order would all rewrite all of them, which takes each six seconds of processor time.
    """
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is None:
        return
    places = [session.config.invocation_params.dir / each.partition("::")[0] for each in session.config.args]
    files = [file for place in places for file in (sorted(place.rglob("test_*.py")) if place.is_dir() else [place])]
    names = [".".join(file.relative_to(session.config.rootpath).with_suffix("").parts) for file in files]
    first = len(names) * int(worker.removeprefix("gw")) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for name in names[first:] + names[:first]:
        with suppress(Exception):  # pytest imports it again, and says what is wrong with it
            importlib.import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests that wait out among the others, which use the processor meanwhile.

    xdist gives each worker a part of the list, one after the other, and a worker that is done takes from the others.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    waiting = [item for item in items if item.nodeid.startswith(_WAITING)]
    others = [item for item in items if not item.nodeid.startswith(_WAITING)]
    others.sort(key=lambda item: not item.nodeid.startswith(_BROWSER))
    size = -(-len(others) // workers)
    items.clear()
    for number in range(workers):
        busy, idle = others[number * size :][:size], waiting[number::workers]
        places = [(_BY_THE_END * place * len(busy) / len(idle), item) for place, item in enumerate(idle)]
        for place, item in enumerate(busy):
            while places and places[0][0] <= place:
                items.append(places.pop(0)[1])
            items.append(item)
        items += [item for _, item in places]


def pytest_collection_finish() -> None:
    """Look for garbage from here on, but not in what stays until the end."""
    gc.freeze()
    gc.enable()


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
