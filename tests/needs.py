"""What tests need of the machine; if it is missing they are skipped by name. See tests/conftest.py."""

import shutil
from typing import NoReturn

import pytest

NOT_PERMITTED = "not permitted here"  # a container may not be allowed to; that is no fault of its


def installed(program: str, package: str) -> pytest.MarkDecorator:
    """Mark tests that need a program, which this Debian package brings."""
    reason = f"{program} is not installed (Debian: apt-get install {package})"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


def permitted(is_permitted: bool, what: str) -> pytest.MarkDecorator:  # noqa: FBT001 -- as `skipif` takes it
    """Mark tests that need the right to something."""
    return pytest.mark.skipif(not is_permitted, reason=f"{NOT_PERMITTED}: {what}")


def skip_not_permitted(what: str) -> NoReturn:
    """Skip the test that is running: this process has no right to something."""
    pytest.skip(f"{NOT_PERMITTED}: {what}")
