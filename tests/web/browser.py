"""A real Chromium, and checks after each page: no error, and no foreign request."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

_FLAGS = (
    "--no-sandbox",  # tests may run as root, where the sandbox cannot
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

_PATIENCE_MS = 30_000  # a worker, a browser and three other tests may share two cores
expect.set_options(timeout=_PATIENCE_MS)

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PHONE: ViewportSize = {"width": 360, "height": 740}
DESK: ViewportSize = {"width": 1200, "height": 900}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser that the system has, with a profile of its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: the page is not tested (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What went on in a page.

    Args:
        complaints: errors and warnings that it wrote, those of its security policy included.
        origins: whom it asked for something.
    """

    complaints: list[str] = field(default_factory=list)
    origins: set[str] = field(default_factory=set)

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        self.origins.add(f"{parts.scheme}://{parts.netloc}")


@cache
def _profile(browser: Browser, sharpness: float) -> BrowserContext:
    """The one that pages share: a browser takes a second of the processor for each more.

    Its first page is blank, and stays: what shows pages ends with the last of them.
    """
    context = browser.new_context(device_scale_factor=sharpness, reduced_motion="reduce", locale="en-GB")
    context.new_page()
    return context


@contextmanager
def a_page(browser: Browser, *, sharpness: float = 1.0) -> Iterator[Page]:
    """A page that knows of none before it; with it go all that it opened, and the cookies."""
    context = _profile(browser, sharpness)
    try:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        yield page
    finally:
        for each in context.pages[1:]:
            each.close()
        context.clear_cookies()


@contextmanager
def looking(
    browser: Browser,
    url: str,
    *,
    size: ViewportSize = DESK,
    scheme: Literal["light", "dark"] = "light",
    sharpness: float = 1.0,
) -> Iterator[Page]:
    """A page at this address; at the end, check that it had no error and made no foreign request.

    Args:
        size: in pixels.
        sharpness: device pixels a pixel, for pictures.
    """
    seen = Seen()
    with a_page(browser, sharpness=sharpness) as page:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        seen.watch(page)
        page.goto(url)
        yield page
    assert seen.complaints == []
    parts = urlsplit(url)
    assert seen.origins == {f"{parts.scheme}://{parts.netloc}"}


_AXE = files("axe_playwright_python").joinpath("axe.min.js")  # the package has no types, and little else


def violations(page: Page) -> list[str]:
    """What axe finds wrong with the page as it stands, light and dark: each rule, what broke it, and how."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE.read_text())
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for rule in page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]:
            found += [
                f"{scheme}: {rule['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}"
                for node in rule["nodes"]
            ]
    return found
