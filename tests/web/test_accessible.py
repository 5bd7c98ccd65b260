"""The page is accessible: checked by axe, by screen reader text, and by focus."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.processes import Command, write_changes
from tests.web import scenes
from tests.web.asking import Surface, link_to
from tests.web.browser import DESK, PHONE, looking, violations
from tests.web.inside import a_worker_in_a_thread

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize("scene", [scenes.at_work, scenes.halted, scenes.empty])
def test_axe_finds_nothing_in_any_scene(
    browser: Browser, tmp_path: Path, scene: Callable[[Path], AbstractContextManager[Surface]]
) -> None:
    with scene(tmp_path) as surface, looking(browser, f"http://127.0.0.1:{surface.port}") as page:
        expect(page.locator("#word")).to_have_text("Live")
        expect(page.locator("#chart-pending svg")).to_be_visible()
        for size in (DESK, PHONE):
            page.set_viewport_size(size)
            assert violations(page) == []


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A worker that serves the page of a queue with dead letters."""
    folder = tmp_path_factory.mktemp("lettered")
    with scenes.a_service(folder, "--completions", "9", "--reject", scenes.REJECTED) as (command, _):
        scenes.with_dead_letters(command)
        with scenes.a_daemon(command):
            yield command


def test_axe_finds_nothing_in_what_can_be_opened(browser: Browser, lettered: Command) -> None:
    with looking(browser, link_to(lettered)) as page:
        expect(page.locator("#needed-link")).to_have_text("Look at them")
        expect(page.locator("#title")).to_have_text("4 dead letters to look at")
        expect(page.locator("#state")).to_have_attribute("data-kind", "needed")
        assert violations(page) == []
        page.locator(".reason[data-reason=rejected] summary").click()
        page.locator(".letter").first.click()
        expect(page.locator("#story")).to_be_visible()
        assert violations(page) == []
        for verb in ("Purge", "Replay"):
            page.locator("#story").get_by_role("button", name=verb).click()
            expect(page.locator("#sure")).to_be_visible()
            assert violations(page) == []
            page.keyboard.press("Escape")


def test_a_wrong_token_is_told_where_the_focus_is(browser: Browser, tmp_path: Path) -> None:
    with (
        a_worker_in_a_thread(tmp_path, token=TOKEN) as inside,
        looking(browser, f"http://127.0.0.1:{inside.port}") as page,
    ):
        field = page.get_by_label("Token")
        expect(field).to_be_focused()
        assert violations(page) == []
        for _ in range(2):  # the second time, the address is the same
            page.keyboard.type("wrong")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_have_text("That is not the token. Try again.")
            expect(field).to_have_value("")
            expect(field).to_be_focused()
            expect(field).to_have_accessible_description("That is not the token. Try again.")
            expect(field).to_have_attribute("aria-invalid", "true")
            assert violations(page) == []
        page.goto(f"http://127.0.0.1:{inside.port}/sign-in#ticket=1.2.3")
        expect(page.get_by_role("alert")).to_contain_text("metasync page prints another")
        expect(field).to_be_focused()


def test_what_goes_on_is_said_aloud_once_and_figures_are_not(browser: Browser, tmp_path: Path) -> None:
    with (
        scenes.a_service(tmp_path, "--completions", "200", "--latency", "100ms", "--limit", "1200") as (command, _),
        scenes.a_daemon(command) as surface,
        looking(browser, f"http://127.0.0.1:{surface.port}") as page,
    ):
        heard = _heard(page)
        expect(page.locator("#title")).to_have_text("Nothing to do")
        command.run("enqueue", write_changes(tmp_path / "changes.jsonl", scenes.changes(200)))
        titles: set[str] = set()
        while len(titles) < 4:
            titles.add(page.locator("#title").inner_text())
            page.wait_for_timeout(100)
    assert [text for text in heard if re.search(r"\d", text)] == []
    assert "Changes are being applied." in heard
    assert [one for one, other in pairwise(heard) if one == other] == []


def _heard(page: Page) -> list[str]:
    """What live regions say from now on."""
    heard: list[str] = []
    page.expose_function("hear", lambda text: heard.append(text))  # noqa: PLW0108 -- a list's own method takes no mark of playwright's
    page.evaluate(
        """() => {
            for (const region of document.querySelectorAll("[role=status], [aria-live]"))
                new MutationObserver(() => hear(region.textContent)).observe(
                    region, { childList: true, characterData: true, subtree: true });
        }"""
    )
    return heard


# Of the element that has the focus: the first of those around it that cut off a part of its ring.
_CUT_OFF = """() => {
    const element = document.activeElement;
    if (element === document.body) return null;
    const style = getComputedStyle(element);
    const ring = parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth);
    const inner = element.getBoundingClientRect();
    for (let around = element.parentElement; around; around = around.parentElement) {
        if (getComputedStyle(around).overflowX === "visible") continue;
        const outer = around.getBoundingClientRect();
        if (inner.left - ring < outer.left || inner.right + ring > outer.right
            || inner.top - ring < outer.top || inner.bottom + ring > outer.bottom)
            return `${around.id || around.className} cuts off ${element.outerHTML}`;
    }
    return style.outlineStyle === "none" ? `${element.outerHTML} has no ring` : null;
}"""


def test_no_ring_of_the_focus_is_cut_off(browser: Browser, lettered: Command) -> None:
    with looking(browser, link_to(lettered)) as page:
        page.locator(".reason[data-reason=rejected] summary").click()
        expect(page.locator(".letter")).to_have_count(3)
        page.locator("h1").click()
        reached = set()
        for _ in range(14):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
            assert page.evaluate(_CUT_OFF) is None
    assert {"letter", "SUMMARY", "danger", "A"} <= reached
