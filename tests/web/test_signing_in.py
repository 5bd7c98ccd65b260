"""Who may act: users with the token, or with a link that only the worker's own user can print."""

import asyncio
import fcntl
import json
import os
import re
import signal
import tempfile
from pathlib import Path
from subprocess import Popen
from urllib.parse import urlencode, urlsplit

import pytest
from structlog.testing import capture_logs

from tests.e2e.processes import Command, stopped
from tests.web.asking import Surface, link_to, serving, surface_of
from tests.web.inside import a_worker_inside
from worker.web.access import SESSION_SECONDS, TICKET_SECONDS, Sessions, make_ticket
from worker.web.link import left_for_people, links

TOKEN = "a-token-of-some-length"
EVERY = {"all": True, "newest": 1, "shown": 1}
FORM = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}


def _sign_in(surface: Surface, **what: str) -> tuple[int, dict[str, str]]:
    """The status, and the headers of the answer."""
    status, headers, _ = surface.ask_whole("/sign-in", method="POST", body=urlencode(what), **FORM)
    return status, headers


def _ticket(link: str) -> str:
    return urlsplit(link).fragment.removeprefix("ticket=")


def _events(process: "Popen[bytes]") -> list[dict[str, object]]:
    """What has been logged by the end."""
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate(timeout=60)[::-1]
    return [json.loads(line) for line in log.decode().splitlines()]


def test_without_a_token_local_users_may_look_and_users_with_the_link_may_act(command: Command) -> None:
    with stopped(serving(command).start("run")) as process:
        surface = surface_of(process)
        assert surface.ask_json("/session") == (200, {"acts": False})
        assert surface.ask("/letters")[0] == 200
        for verb in ("/purge", "/replay"):
            status, body = surface.order(verb, EVERY)
            assert (status, "metasync page" in body) == (401, True)
        link = link_to(command)
        assert link.startswith(f"http://127.0.0.1:{surface.port}/sign-in#ticket=")
        status, headers = _sign_in(surface, ticket=_ticket(link))
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"].partition(";")[0]
        assert surface.ask("/session", Cookie=cookie)[1] == '{"acts":true}'
        assert surface.order("/purge", EVERY, Cookie=cookie) == (200, '{"purged":0}')
        assert surface.order("/purge", EVERY, Cookie=cookie.replace(str(surface.port), "1"))[0] == 401
        status, headers = _sign_in(surface, ticket=_ticket(link))  # used
        assert (status, headers["location"], "set-cookie" in headers) == (303, "/sign-in#expired", False)
        status, headers = _sign_in(surface, token=TOKEN)
        assert (status, headers["location"], "set-cookie" in headers) == (303, "/sign-in#refused", False)
        events = _events(process)
    assert [(event["event"], event["peer"]) for event in events if "peer" in event][:3] == [
        ("web.signed_in", "127.0.0.1"),
        ("web.purged", "127.0.0.1"),
        ("web.sign_in_refused", "127.0.0.1"),
    ]
    secret = cookie.partition("=")[2]
    assert not [event for event in events if secret in str(event) or _ticket(link) in str(event)]


def test_with_a_token_a_link_signs_in_too_and_no_file_holds_the_token(command: Command) -> None:
    with stopped(serving(command, METASYNC_HTTP_TOKEN=TOKEN).start("run")) as process:
        surface = surface_of(process)
        status, headers = _sign_in(surface, ticket=_ticket(link_to(command)))
        assert (status, headers["location"]) == (303, "/")
        assert surface.ask("/metrics", Cookie=headers["set-cookie"].partition(";")[0])[0] == 200
        [left] = (command.folder / "metasync").iterdir()
        assert TOKEN not in left.read_text()
        assert oct(left.stat().st_mode) == "0o100600"
        assert oct(left.parent.stat().st_mode) == "0o40700"


def test_many_wrong_tokens_are_few_lines(command: Command) -> None:
    with stopped(serving(command, METASYNC_HTTP_TOKEN=TOKEN).start("run")) as process:
        surface = surface_of(process)
        statuses = [_sign_in(surface, token=f"wrong-{number}")[0] for number in range(6)]
        assert set(statuses) <= {303, 429}
        events = _events(process)
    refused = [event for event in events if event["event"] == "web.sign_in_refused"]
    assert sum(1 + int(str(event["more"])) for event in refused) in {5, 6}  # those after the last line are in no other
    assert "wrong-" not in str(events)


def test_each_worker_has_a_link_of_its_own_and_one_that_is_gone_has_none(command: Command) -> None:
    with stopped(serving(command).start("run")) as one, stopped(serving(command).start("run")) as other:
        surfaces = [surface_of(one), surface_of(other)]
        links = serving(command).run("page").stdout.split()
        assert {urlsplit(link).port for link in links} == {surface.port for surface in surfaces}
        port = str(surfaces[1].port)
        [link] = serving(command, METASYNC_HTTP_PORT=port).run("page").stdout.split()
        assert urlsplit(link).port == surfaces[1].port
        assert _sign_in(surfaces[0], ticket=_ticket(link))[1]["location"] == "/sign-in#expired"
        other.kill()
        other.wait(30)
        assert urlsplit(link_to(command)).port == surfaces[0].port
        one.send_signal(signal.SIGTERM)
        one.communicate(timeout=30)
    ended = serving(command).run("page")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no worker of this user serves a page on this machine" in ended.stderr
    assert len(list((command.folder / "metasync").iterdir())) == 1  # of the one that was killed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is that this process finds for what it leaves; no variable names a place in there yet."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("place", ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", None])
def test_the_link_is_found_wherever_it_can_be_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    if place:
        (folder / "named").mkdir()
        monkeypatch.setenv(place, str(folder / "named"))
    with left_for_people("127.0.0.1", 8080, "00", is_needed=True), left_for_people("::", 81, "00", is_needed=True):
        assert {path.stat().st_mode for path in folder.rglob("page-*.json")} == {0o100600}
        assert [link.partition("#")[0] for link in links(None, 0.0)] == [
            "http://127.0.0.1:8080/sign-in",
            "http://[::1]:81/sign-in",
        ]
        assert len(links(81, 0.0)) == 1
        assert links(82, 0.0) == []
    assert list(folder.rglob("page-*.json")) == []


def test_a_directory_that_others_can_write_is_not_used(folder: Path) -> None:
    shared = folder / f"metasync-{os.geteuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    for is_needed in (True, False):
        with capture_logs() as logs, left_for_people("127.0.0.1", 8080, "00", is_needed=is_needed):
            assert list(shared.iterdir()) == []
        assert [(line["event"], line["log_level"]) for line in logs] == [("web.no_link", "warning")] * is_needed
    planted = shared / "page-81.json"
    planted.write_text('{"url": "http://evil.example", "key": "00"}')
    with planted.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert links(None, 0.0) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1, "key": "00"}', "\x00"])
def test_a_file_that_makes_no_sense_hides_no_other(folder: Path, content: str) -> None:
    with left_for_people("127.0.0.1", 8080, "00", is_needed=True):
        [left] = folder.rglob("page-*.json")
        odd = left.with_name("page-1.json")
        odd.write_text(content)
        left.with_name("page-x.json").write_text("{}")
        with odd.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert len(links(None, 0.0)) == 1


def test_tickets_and_cookies_are_good_for_their_time_and_for_nothing_else() -> None:
    now = 1_000_000.0
    sessions = Sessions(TOKEN, lambda: now)
    ticket = make_ticket(sessions.ticket_key, now)
    assert re.fullmatch(r"\d+\.[0-9a-f]{16}\.[0-9a-f]{64}", ticket)
    for odd in ("", ".", "..", "1.2.3", ticket[:-1], "9" + ticket, ticket + "x", "\ud800", "é" * 100):
        assert not sessions.takes_ticket(odd)
    assert not Sessions(TOKEN + "x", lambda: now).takes_ticket(ticket)
    assert not Sessions(TOKEN, lambda: now).takes_ticket(ticket)  # another worker's, or this one's started anew
    now += TICKET_SECONDS - 1
    assert sessions.takes_ticket(ticket)
    assert not sessions.takes_ticket(ticket)
    assert TICKET_SECONDS < SESSION_SECONDS
    old = make_ticket(sessions.ticket_key, now)
    now += TICKET_SECONDS
    assert not sessions.takes_ticket(old)


def test_without_a_token_none_can_be_guessed() -> None:
    one, other = (Sessions(None, lambda: 0.0) for _ in range(2))
    assert one.ticket_key != other.ticket_key
    assert not one.is_token("")
    assert not one.is_token("None")


async def test_a_copy_of_a_cookie_is_worth_nothing_after_the_sign_out_and_other_sign_ins_go_on(
    tmp_path: Path,
) -> None:
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:
        surface = Surface(inside.port)
        stolen, other = [
            (await asyncio.to_thread(_sign_in, surface, token=TOKEN))[1]["set-cookie"].partition(";")[0]
            for _ in range(2)
        ]

        async def acts(cookie: str) -> bool:
            return (await inside.ask("GET /session", "Host: a", f"Cookie: {cookie}")).status == 200

        out = ("Host: a", "Sec-Fetch-Site: same-origin", "Content-Length: 0")
        assert (await inside.ask("POST /sign-out", *out, f"Cookie: {stolen}x")).status == 401
        assert [await acts(stolen), await acts(other)] == [True, True]
        assert (await inside.ask("POST /sign-out", *out, f"Cookie: {stolen}")).status == 303
        assert [await acts(stolen), await acts(other)] == [False, True]


async def test_a_ticket_is_no_cookie(tmp_path: Path) -> None:
    async with a_worker_inside(tmp_path, token=TOKEN) as inside:
        sessions = Sessions(TOKEN, inside.worker.clock.unix)
        ticket = make_ticket(sessions.ticket_key, inside.worker.clock.unix())
        for name in ("metasync", f"metasync-{inside.port}"):
            assert (await inside.ask("GET /session", "Host: a", f"Cookie: {name}={ticket}")).status == 401
        assert (await inside.ask("GET /session", "Host: a", f"Authorization: Bearer {ticket}")).status == 401
