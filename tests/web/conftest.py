from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.conftest import command, simulator
from tests.web.browser import chromium

__all__ = ["browser", "command", "simulator"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser
