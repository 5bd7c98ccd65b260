"""The page in a real browser: what it shows, its actions, and that it loads nothing foreign."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.processes import Command, RunningSimulator, write_changes
from tests.web import scenes
from tests.web.asking import Surface, link_to
from tests.web.browser import PHONE, SCHEMES, a_page, looking
from tests.web.inside import Inside, a_worker_in_a_thread
from worker.queue import REASONS
from worker.web import page as pages

TOKEN = "a-token-of-some-length"
LATE = {"completion_id": "chatcmpl-000007", "metadata": {f"key-{number}": "value" for number in range(16)}}
NO_SIDEWAYS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


def _url(surface: Surface | Inside) -> str:
    return f"http://127.0.0.1:{surface.port}"


@pytest.fixture(scope="module")
def queue_of_the_dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A queue with one letter that has too many keys and three that were rejected."""
    folder = tmp_path_factory.mktemp("dead")
    with scenes.a_service(folder, "--completions", "9", "--reject", scenes.REJECTED) as (command, _):
        scenes.with_dead_letters(command)
    return folder


@pytest.fixture
def dead(tmp_path: Path, queue_of_the_dead: Path) -> Iterator[tuple[Command, RunningSimulator]]:
    """A service, and such a queue of this test alone."""
    for file in queue_of_the_dead.glob("metasync.db*"):
        shutil.copy(file, tmp_path)
    with scenes.a_service(tmp_path, "--completions", "9", "--reject", scenes.REJECTED) as (command, simulator):
        yield command, simulator


def _open_rejected(page: Page) -> None:
    page.locator(".reason[data-reason=rejected] summary").click()
    expect(page.locator(".letter")).to_have_count(3)


def test_it_brings_itself_up_to_date(browser: Browser, command: Command, simulator: RunningSimulator) -> None:
    simulator.ask("/seed", {"count": 5})
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as page:
        expect(page.locator("#title")).to_have_text("Nothing to do")
        expect(page.locator("#word")).to_have_text("Live")
        expect(page.locator("#letters")).to_contain_text("No dead letters")
        changes = [*scenes.changes(5), *scenes.changes(1, first=9)]
        command.run("enqueue", write_changes(command.folder / "changes.jsonl", changes))
        expect(page.locator("#latest .tag.applied")).to_have_count(5)
        expect(page.locator("#chart-done rect.applied")).not_to_have_count(0)
        expect(page.locator("#chart-done svg")).to_have_attribute("aria-label", re.compile("Changes a second"))


def test_each_reason_is_told_in_words() -> None:
    script = (Path(pages.__file__).parent / "page" / "page.js").read_text()
    words = script.partition("const REASONS = {")[2].partition("};")[0]
    assert tuple(re.findall(r"^  (\w+): \"", words, re.MULTILINE)) == REASONS


def test_a_halt_is_told_in_words(browser: Browser, tmp_path: Path) -> None:
    with scenes.halted(tmp_path) as surface, looking(browser, _url(surface)) as page:
        expect(page.locator("#title")).to_have_text(re.compile(r"Halted since \d\d:\d\d"))
        expect(page.locator("#detail")).to_contain_text("The API key is refused (401).")


def test_what_cannot_be_shown_is_told_in_words_until_it_can(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_worker_in_a_thread(tmp_path) as inside, looking(browser, _url(inside)) as page:
        expect(page.locator("#title")).to_have_text("Nothing to do")
        monkeypatch.setattr(inside.worker.tallies, "latest", None)
        expect(page.locator("#title")).to_have_text("The page has no current data")
        expect(page.locator("#word")).to_have_text("Live")
        monkeypatch.undo()
        expect(page.locator("#title")).to_have_text("Nothing to do")


def test_the_last_hour_is_there_after_a_restart(
    browser: Browser, command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"count": 3})
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as page:
        command.run("enqueue", write_changes(command.folder / "changes.jsonl", scenes.changes(3)))
        expect(page.locator("#latest .tag.applied")).to_have_count(3)
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as page:
        expect(page.locator("#chart-done rect.applied")).not_to_have_count(0)
        expect(page.locator("#latest")).to_contain_text("Nothing yet")


def test_a_letter_tells_its_story_and_is_replayed(browser: Browser, dead: tuple[Command, RunningSimulator]) -> None:
    command, _ = dead
    with scenes.a_daemon(command), looking(browser, link_to(command)) as page:
        expect(page.locator("#dead")).to_have_text("4")
        page.locator(".reason[data-reason=too_many_keys] summary").click()
        page.locator(".letter").click()
        story = page.locator("#story")
        expect(story).to_contain_text("chatcmpl-000002")
        expect(story).to_contain_text("line-2")
        story.get_by_role("button", name="Replay").click()
        sure = page.locator("#sure")
        expect(sure).to_contain_text("Replay letter")
        sure.get_by_role("button", name="Replay").click()
        expect(page.locator("#done")).to_have_text("1 letter replayed.")
        expect(page.locator("#latest .tag.dead")).to_have_text("too many keys")  # it has been tried again


def test_the_age_of_a_letter_goes_by_the_workers_clock(
    browser: Browser, dead: tuple[Command, RunningSimulator]
) -> None:
    command, _ = dead
    with scenes.a_daemon(command), a_page(browser) as page:
        page.add_init_script("const now = Date.now; Date.now = () => now() - 3_600_000")
        page.goto(link_to(command))
        _open_rejected(page)
        expect(page.locator(".letter .side").first).to_have_text(re.compile(r"^400 · \d+ (s|min) ago$"))


def test_letters_of_a_reason_and_all_are_purged_once_that_is_confirmed(
    browser: Browser, dead: tuple[Command, RunningSimulator]
) -> None:
    command, _ = dead
    with scenes.a_daemon(command), looking(browser, link_to(command)) as page:
        _open_rejected(page)
        page.get_by_role("button", name="Purge these").locator("visible=true").click()
        page.locator("#sure").get_by_role("button", name="Cancel").click()
        expect(page.locator("#dead")).to_have_text("4")
        page.get_by_role("button", name="Purge these").locator("visible=true").click()
        page.locator("#sure").get_by_role("button", name="Purge").click()
        expect(page.locator("#done")).to_have_text("3 letters purged.")
        expect(page.locator("#dead")).to_have_text("1")
        page.get_by_role("button", name="Purge all").click()
        page.locator("#sure").get_by_role("button", name="Purge").click()
        expect(page.locator("#letters")).to_contain_text("No dead letters")


def test_letters_that_are_old_enough_are_purged(browser: Browser, dead: tuple[Command, RunningSimulator]) -> None:
    command, _ = dead
    with scenes.a_daemon(command), looking(browser, link_to(command)) as page:
        page.get_by_role("button", name="Purge all").click()
        page.get_by_label("Those that died").select_option("more than 7 days ago")
        page.locator("#sure").get_by_role("button", name="Purge").click()
        expect(page.locator("#done")).to_have_text("0 letters purged.")
        expect(page.locator("#dead")).to_have_text("4")
        page.get_by_role("button", name="Replay all").click()
        expect(page.get_by_label("Those that died")).to_be_hidden()


def test_a_batch_shows_how_far_it_is_and_tells_its_story(
    browser: Browser, dead: tuple[Command, RunningSimulator]
) -> None:
    command, _ = dead
    changes = write_changes(command.folder / "changes.jsonl", [*scenes.changes(3, first=7), LATE])
    command.run("enqueue", "--batch", "labels-1", changes)
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as page:
        row = page.locator("#batches li[data-batch='labels-1']")
        expect(row).to_contain_text("finished · 1 dead")
        expect(row.locator("progress")).to_have_js_property("value", 1)
        row.get_by_role("button").click()
        expect(page.locator("#story-title")).to_have_text("Batch labels-1")
        expect(page.locator("#batch-facts")).to_contain_text("3 applied · 1 dead")
        expect(page.locator("#story")).to_contain_text("too_many_keys")
        page.keyboard.press("Escape")
        page.locator(".reason[data-reason=too_many_keys] summary").click()
        page.locator(".letter", has_text="chatcmpl-000007").click()
        expect(page.locator("#story")).to_contain_text("labels-1")


def test_letters_that_come_before_the_confirmation_are_not_purged(
    browser: Browser, dead: tuple[Command, RunningSimulator]
) -> None:
    command, _ = dead
    with scenes.a_daemon(command), looking(browser, link_to(command)) as page:
        expect(page.locator("#title")).to_have_text("4 dead letters to look at")
        page.get_by_role("button", name="Purge all").click()
        expect(page.locator("#sure")).to_contain_text("Purge 4 letters?")
        command.run("enqueue", write_changes(command.folder / "late.jsonl", [*scenes.changes(1, first=7), LATE]))
        expect(page.locator("#dead")).to_have_text("5")
        page.locator("#sure").get_by_role("button", name="Purge").click()
        expect(page.locator("#done")).to_have_text("4 letters purged.")
        expect(page.locator("#dead")).to_have_text("1")


def test_a_user_without_a_session_may_look_and_is_told_how_to_act(
    browser: Browser, dead: tuple[Command, RunningSimulator]
) -> None:
    command, _ = dead
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as page:
        _open_rejected(page)
        expect(page.locator("#how-to-act")).to_contain_text("metasync page")
        expect(page.locator("[data-do]").locator("visible=true")).to_have_count(0)
        page.goto(link_to(command))
        expect(page.get_by_role("button", name="Purge all")).to_be_visible()
        assert page.url == f"{_url(surface)}/"
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#how-to-act")).to_be_visible()
        expect(page.locator("[data-do]").locator("visible=true")).to_have_count(0)


def test_hidden_tabs_keep_no_connection_and_update_when_shown(
    browser: Browser, command: Command, simulator: RunningSimulator
) -> None:
    simulator.ask("/seed", {"count": 5})
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as first:
        expect(first.locator("#word")).to_have_text("Live")
        for _ in range(6):  # as many connections as a browser has for one host
            _be_seen(first.context.pages[-1], hidden=True)
            page = first.context.new_page()
            page.goto(_url(surface))
            expect(page.locator("#word")).to_have_text("Live")
        expect(first).to_have_title("metasync")
        command.run("enqueue", write_changes(command.folder / "changes.jsonl", scenes.changes(5)))
        expect(page.locator("#latest .tag.applied")).to_have_count(5)
        expect(first.locator("#latest .tag.applied")).to_have_count(0)
        _be_seen(page, hidden=True)
        _be_seen(first, hidden=False)
        expect(first.locator("#latest .tag.applied")).to_have_count(5)
        expect(first.locator("#word")).to_have_text("Live")


def _be_seen(page: Page, *, hidden: bool) -> None:
    """As when a tab is left, or come back to: the browser of a test shows all of them."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_everything_can_be_done_with_the_keyboard(browser: Browser, dead: tuple[Command, RunningSimulator]) -> None:
    command, _ = dead
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface)) as page:
        expect(page.locator("#dead")).to_have_text("4")
        _tab_to(page, ".reason[data-reason=rejected] summary")
        page.keyboard.press("Enter")
        expect(page.locator(".letter")).to_have_count(3)
        _tab_to(page, ".letter")
        page.keyboard.press("Enter")
        expect(page.locator("#story")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#story")).to_be_hidden()
        expect(page.locator(".letter").first).to_be_focused()


def _tab_to(page: Page, selector: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard does not reach {selector}")


@pytest.mark.parametrize("shown", [False, True])
def test_values_are_masked_unless_they_are_asked_for(
    browser: Browser, dead: tuple[Command, RunningSimulator], *, shown: bool
) -> None:
    command, _ = dead
    with (
        scenes.a_daemon(command, METASYNC_LOG_VALUES=str(shown).lower()) as surface,
        looking(browser, _url(surface)) as page,
    ):
        _open_rejected(page)
        page.locator(".letter").first.click()
        expect(page.locator(".pairs")).to_have_text(f"topic{scenes.REJECTED if shown else '•••'}")
        assert (scenes.REJECTED in page.content()) is shown


def test_people_sign_in_and_out(browser: Browser, command: Command) -> None:
    with (
        scenes.a_daemon(command, METASYNC_HTTP_TOKEN=TOKEN) as surface,
        looking(browser, _url(surface)) as page,
    ):
        assert page.url.endswith("/sign-in")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#word")).to_have_text("Live")
        [cookie] = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        assert page.context.cookies() == []


def test_a_phone_need_not_scroll_sideways(browser: Browser, dead: tuple[Command, RunningSimulator]) -> None:
    def check_width(page: Page) -> None:
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(NO_SIDEWAYS)

    command, _ = dead
    with scenes.a_daemon(command) as surface, looking(browser, _url(surface), size=PHONE) as page:
        _open_rejected(page)
        check_width(page)
        page.locator(".letter").first.click()
        expect(page.locator("#story")).to_be_visible()
        check_width(page)


def test_a_worker_that_has_gone_is_missed(browser: Browser, command: Command) -> None:
    with a_page(browser) as page:  # without checks: the browser reports the failed connection
        with scenes.a_daemon(command) as surface:
            page.goto(_url(surface))
            expect(page.locator("#word")).to_have_text("Live")
        expect(page.locator("#word")).to_contain_text("Not connected; last update")
