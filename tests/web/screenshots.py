"""Takes the pictures of the page for docs/page.md: `make screenshots`."""

import re
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, expect

from tests.e2e.processes import Command
from tests.web import scenes
from tests.web.asking import link_to
from tests.web.browser import DESK, PHONE, chromium, looking

_PICTURES = Path(__file__).parents[2] / "docs"
_SETTLED_MS = 14_000  # a figure over ten seconds has become one


def _take(
    browser: Browser,
    place: str,
    path: Path,
    *,
    scheme: Literal["light", "dark"] = "light",
    phone: bool = False,
    whole: bool = False,
    state: str = "Applying",
    story: bool = False,
) -> None:
    link = link_to(Command(Path(place), {}))
    with looking(browser, link, scheme=scheme, size=PHONE if phone else DESK, sharpness=2 if phone else 1) as page:
        expect(page.locator("#title")).to_have_text(re.compile(state))
        page.wait_for_timeout(_SETTLED_MS if state == "Applying" else 1_500)
        if story:
            _open_story(page)
        page.screenshot(path=path, full_page=whole, animations="disabled")


def _open_story(page: Page) -> None:
    page.get_by_text("rejected", exact=True).click()
    page.locator(".letter").first.click()


def main(folder: Path, *, every: bool) -> None:
    """Take the pictures for docs/page.md, or with `every` those of all states."""
    with chromium() as browser:
        with tempfile.TemporaryDirectory() as place, scenes.at_work(Path(place), 9_000):
            _take(browser, place, folder / "page-light.png", whole=True)
            _take(browser, place, folder / "page-dark.png", scheme="dark", whole=every)
            _take(browser, place, folder / "page-phone.png", phone=True, whole=every)
            if every:
                _take(browser, place, folder / "page-story.png", story=True)
                _take(browser, place, folder / "page-story-phone.png", scheme="dark", story=True, phone=True)
        if not every:
            return
        with tempfile.TemporaryDirectory() as place, scenes.halted(Path(place)):
            _take(browser, place, folder / "page-halted.png", state="Halted", whole=True)
            _take(browser, place, folder / "page-halted-dark.png", scheme="dark", state="Halted", phone=True)
        with tempfile.TemporaryDirectory() as place, scenes.empty(Path(place)):
            _take(browser, place, folder / "page-empty.png", state="Nothing to do", whole=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _PICTURES, every=len(sys.argv) > 1)
