"""Changes over HTTP: what is stored, what is refused and how, and who may send."""

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import KEY, Command, running_simulator, stopped, wait_for_event
from tests.queue.helpers import claim, finished
from worker.api.room import Room
from worker.changes.mapping import Changes
from worker.queue import QueueError, QueueUnavailable, Stored, open_queue
from worker.queue.memory import MemoryQueue
from worker.web import Terms, intake, receiving

TOKEN, NEXT_TOKEN, PAGE_TOKEN = "a-token-of-producers", "the-token-after-it", "a-token-of-operators"
ND = "application/x-ndjson"
JSON = "application/json"


@dataclass
class Door:
    """Sends requests, over one connection that is kept as long as the other end keeps it."""

    port: int

    def __post_init__(self) -> None:
        self.connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.headers: dict[str, str] = {}

    def close(self) -> None:
        self.connection.close()

    def send(
        self, body: Any, content_type: str = JSON, *, token: str = TOKEN, query: str = "", **headers: str
    ) -> tuple[int, Any]:
        """Give the status and the JSON of the answer."""
        given = {"Content-Type": content_type, "Authorization": f"Bearer {token}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        encoded = body if isinstance(body, bytes | str) or hasattr(body, "__next__") else json.dumps(body)
        self.connection.request("POST", f"/changes{query}", body=encoded, headers=given)
        answer = self.connection.getresponse()
        self.headers = dict(answer.headers)
        text = answer.read()
        return answer.status, json.loads(text) if answer.headers.get_content_type() == JSON else text.decode()


@contextmanager
def an_intake(command: Command, **settings: str) -> Iterator[tuple[Door, "subprocess.Popen[bytes]"]]:
    """`metasync intake` on a free port."""
    given = {"METASYNC_HTTP_PORT": "0", "METASYNC_INTAKE_TOKEN": f"{TOKEN}, {NEXT_TOKEN}", **settings}
    with (
        stopped(Command(command.folder, {**command.settings, **given}).start("intake")) as process,
        closing(Door(wait_for_event(process, "web.started")["port"])) as door,
    ):
        yield door, process


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command in an empty folder, with nothing set."""
    return Command(tmp_path, {})


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with an_intake(Command(tmp_path_factory.mktemp("intake"), {})) as (door, _):
        yield door


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {"completion_id": f"chatcmpl-{number}", "metadata": {"grade": "A"}, **fields}


def lines(*changes: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(change)}\n" for change in changes)


BAD = {"completion_id": "../x", "metadata": {}}
TAKEN: dict[str, tuple[str, Any, int]] = {
    "an object": (JSON, line(1), 1),
    "an object with a charset": ("application/json; charset=utf-8", line(1), 1),
    "an object over several lines": (JSON, json.dumps(line(1), indent=2), 1),
    "an array": (JSON, [line(1), line(2)], 2),
    "lines": (ND, lines(line(1), line(2), line(3)), 3),
    "lines with another name": ("application/jsonl", lines(line(1)), 1),
    "lines without an end, with blanks": (ND, f"\n{lines(line(1))}\r\n\n{json.dumps(line(2))}", 2),
    "a byte order mark": (ND, b"\xef\xbb\xbf" + lines(line(1)).encode(), 1),
    "an array over lines, said to be lines": (ND, "[\n" + json.dumps(line(1)) + ",\n" + json.dumps(line(2)) + "\n]", 2),
    "other modes": (JSON, line(1, mode="replace"), 1),
    "an empty array": (JSON, [], 0),
    "nothing": (ND, "", 0),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_a_change_goes_in(door: Door, case: str) -> None:
    content_type, body, added = TAKEN[case]

    assert door.send(body, content_type) == (200, {"added": added, "duplicates": 0, "applied_before": 0, "refused": []})


async def test_the_query_names_a_batch_and_says_what_is_urgent(command: Command) -> None:
    with an_intake(command) as (door, _):
        assert door.send([line(1), line(2)], query="?batch=labels-1")[0] == 200
        assert door.send(line(3), query="?batch=labels-1&urgent=true")[0] == 200
        assert door.send(line(4), query="?urgent=false")[0] == 200
    async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
        [batch] = await queue.batches()
        assert (batch.name, batch.changes) == ("labels-1", 3)
        claims = await queue.claim(9, lease_seconds=60, owner="o", place="urgent")
        assert [claim.completion_id for claim in claims] == ["chatcmpl-3"]
        assert len(await queue.claim(9, lease_seconds=60, owner="o")) == 3


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?batch=", "no name of a batch"),
        ("?batch=a%20b", "no name of a batch"),
        ("?batch=a&batch=b", "twice"),
        ("?batch=a&b%61tch=b", "twice"),
        ("?batch=a%00", "no name of a batch"),
        ("?batch=%D0%B0bc", "no name of a batch"),  # a letter that looks like a
        ("?as_of=2026-11-28T10:15Z", "a field of each change"),
        ("?urgent", "true or false"),
        ("?urgent=yes", "true or false"),
        ("?bacth=a", "takes batch and urgent, not 'bacth'"),
        ("?a%0ab=1", r"not 'a\nb'"),
    ],
)
def test_a_query_that_is_none_is_refused_and_nothing_goes_in(door: Door, query: str, says: str) -> None:
    status, problem = door.send(line(1), query=query)

    assert (status, says in problem["error"]) == (400, True), problem


def test_gzip_is_unpacked(door: Door) -> None:
    packed = gzip.compress(lines(line(1)).encode()) + gzip.compress(lines(line(2)).encode())

    assert door.send(packed, ND, Content_Encoding="gzip") == (
        200,
        {"added": 2, "duplicates": 0, "applied_before": 0, "refused": []},
    )


def test_bad_changes_are_named_by_line_and_the_others_go_in(door: Door) -> None:
    body = lines(line(1), BAD) + "nonsense\n\n" + lines(line(2), line(3, metadata={"secret": 7}))

    status, account = door.send(body, ND)

    assert (status, account["added"]) == (200, 2)
    assert [each["line"] for each in account["refused"]] == [2, 3, 6]
    reasons = [each["reason"] for each in account["refused"]]
    assert reasons[0].startswith("completion_id '../x' is not one")
    assert reasons[1].startswith("not JSON")
    assert reasons[2] == "the value of metadata key 'secret' must be a string, not a number"


def test_of_an_array_the_places_are_told(door: Door) -> None:
    status, account = door.send(json.dumps([line(1), BAD, line(2), {"id": "x"}], indent=1))

    assert (status, account["added"]) == (200, 2)
    assert [each["line"] for each in account["refused"]] == [2, 4]


UNTAKEN: dict[str, tuple[int, str, Any]] = {
    "one that breaks a rule": (422, JSON, BAD),
    "an id that stands for nothing": (422, JSON, line(1, completion_id="NULL")),
    "all of several": (422, ND, lines(BAD, BAD)),
    "no object": (422, JSON, "7"),
    "an unknown field": (422, JSON, line(1, grade="A")),
}


@pytest.mark.parametrize("case", UNTAKEN)
def test_where_nothing_goes_in_the_status_says_so(door: Door, case: str) -> None:
    expected, content_type, body = UNTAKEN[case]

    status, account = door.send(body, content_type)

    assert (status, account["added"], account["duplicates"]) == (expected, 0, 0)
    assert account["refused"]


UNREADABLE: dict[str, tuple[int, str, Any, dict[str, str]]] = {
    "a form": (415, "application/x-www-form-urlencoded", "a=b", {}),
    "no type": (415, "", "{}", {}),
    "an unknown packing": (415, JSON, "{}", {"Content_Encoding": "br"}),
    "damaged gzip": (400, JSON, b"\x1f\x8bnonsense", {"Content_Encoding": "gzip"}),
    "gzip that was cut off": (400, ND, gzip.compress(lines(line(1)).encode())[:-9], {"Content_Encoding": "gzip"}),
    "gzip within gzip": (400, ND, gzip.compress(gzip.compress(b"{}")), {"Content_Encoding": "gzip"}),
    "gzip that is not said": (400, ND, gzip.compress(b"{}"), {}),
    "gzip that is none": (400, JSON, "{}", {"Content_Encoding": "gzip"}),
    "UTF-16": (400, ND, lines(line(1)).encode("utf-16"), {}),
    "CSV": (400, ND, "completion_id,grade\nchatcmpl-1,A\n", {}),
    "an empty key": (400, JSON, line(1), {"Idempotency_Key": '""'}),
    "a long key": (400, JSON, line(1), {"Idempotency_Key": "k" * 249}),
    "a key with a space": (400, JSON, line(1), {"Idempotency_Key": "a b"}),
    "two keys": (400, JSON, line(1), {"Idempotency_Key": "a", "idempotency_key": "b"}),
    "too many changes": (413, ND, lines(*[line(i) for i in range(10_001)]), {}),
    "too many bytes": (413, JSON, b" " * (8 * 1024**2 + 1), {}),
    "too many lines, blank ones": (413, ND, "\n" * 100_001, {}),
    "too many bytes, unpacked": (413, ND, gzip.compress(b"\n" * (8 * 1024**2 + 1)), {"Content_Encoding": "gzip"}),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_refused_whole(door: Door, case: str) -> None:
    expected, content_type, body, headers = UNREADABLE[case]

    status, problem = door.send(body, content_type, **headers)

    assert status == expected
    assert list(problem) == ["error"]
    assert problem["error"]
    assert "--" not in problem["error"].partition("`")[0]  # no flags of a command, but within what a shell runs


def test_a_body_that_does_not_say_its_length_is_read_and_bounded(door: Door) -> None:
    whole = lines(*[line(i) for i in range(10)]).encode()
    assert door.send(iter([whole[:77], whole[77:]]), ND) == (
        200,
        {"added": 10, "duplicates": 0, "applied_before": 0, "refused": []},
    )
    try:
        assert door.send(iter([b" " * 1024**2] * 9), ND)[0] == 413
    except (BrokenPipeError, ConnectionResetError):  # it was told before all of it was sent
        door.connection.close()


def test_a_connection_takes_one_request_after_the_other(door: Door) -> None:
    door.send(line(1))
    used = door.connection.sock
    for _ in range(30):  # more than strangers may ask in a second
        assert door.send(line(1))[0] == 200
    assert door.send(BAD)[0] == 422
    assert door.send(line(1))[0] == 200
    assert door.connection.sock is used


def test_a_change_id_is_stored_once_and_other_content_under_it_is_a_conflict(door: Door) -> None:
    first = line(1, change_id="label-1")
    conflict = {"line": 1, "reason": "a different change with its change_id is pending already"}

    assert door.send(first) == (200, {"added": 1, "duplicates": 0, "applied_before": 0, "refused": []})
    assert door.send([first, first]) == (200, {"added": 0, "duplicates": 2, "applied_before": 0, "refused": []})
    assert door.send(first | {"mode": "replace"}) == (
        409,
        {"added": 0, "duplicates": 0, "applied_before": 0, "refused": [conflict]},
    )
    assert door.send([first | {"mode": "replace"}, first]) == (
        200,
        {"added": 0, "duplicates": 1, "applied_before": 0, "refused": [conflict]},
    )
    status, account = door.send([first | {"mode": "replace"}, BAD])
    assert (status, [each["line"] for each in account["refused"]]) == (422, [1, 2])


async def test_a_correction_under_the_change_id_of_what_was_applied_is_counted_apart(command: Command) -> None:
    with an_intake(command) as (door, _):
        pending, applied = line(1, change_id="pending"), line(2, change_id="applied")
        assert door.send([applied])[0] == 200
        async with open_queue(f"sqlite:///{command.folder}/metasync.db") as queue:
            assert await queue.settle([finished(each) for each in await claim(queue)], remember=True) == []
        door.send([pending])
        corrected = applied | {"metadata": {"grade": "B"}}
        account = {"added": 0, "duplicates": 2, "applied_before": 1, "refused": []}
        assert door.send([pending, corrected]) == (200, account)


def test_an_idempotency_key_makes_each_line_idempotent(door: Door) -> None:
    body = lines(line(1), line(2, change_id="label-2"), line(3))
    for added, duplicates in ((3, 0), (0, 3)):
        status, account = door.send(body, ND, Idempotency_Key='"batch-7"')
        assert (status, account["added"], account["duplicates"]) == (200, added, duplicates)
    assert door.send(line(1), Idempotency_Key="batch-7")[1]["duplicates"] == 1  # quotes around it mean nothing
    assert door.send(line(3), change_id="x", Idempotency_Key="k" * 248)[1]["added"] == 1
    assert door.send(lines(line(9)), ND, Idempotency_Key="batch-7")[0] == 409


def test_only_a_token_of_producers_opens_the_door(command: Command) -> None:
    settings = {"METASYNC_HTTP_TOKEN": PAGE_TOKEN, "METASYNC_INTAKE_TOKEN": f"{TOKEN},{NEXT_TOKEN}"}
    with (
        running_simulator() as simulator,
        stopped(
            Command(
                command.folder,
                {
                    "OPENAI_API_KEY": KEY,
                    "OPENAI_BASE_URL": simulator.base_url,
                    "METASYNC_HTTP_PORT": "0",
                    "METASYNC_LOG_LEVEL": "debug",
                    "XDG_RUNTIME_DIR": str(command.folder),
                    **settings,
                },
            ).start("run")
        ) as process,
        ExitStack() as stack,
    ):
        simulator.ask("/seed", {"ids": ["chatcmpl-1"]})
        door = stack.enter_context(closing(Door(wait_for_event(process, "web.started")["port"])))
        for token in (TOKEN, NEXT_TOKEN):
            assert door.send([], token=token)[0] == 200
        for token in ("", "wrong", f"{TOKEN},{NEXT_TOKEN}", PAGE_TOKEN, KEY, TOKEN[:-1], f"{TOKEN}x"):
            status, problem = door.send(line(1), token=token)
            assert (status, problem) == (401, {"error": "METASYNC_INTAKE_TOKEN is needed, as a bearer token"})
        assert door.send(line(1))[0] == 200
        for method, path in [("GET", "/"), ("GET", "/metrics"), ("GET", "/letters"), ("POST", "/purge")]:
            door.connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = door.connection.getresponse()
            answer.read()
            assert answer.status == 401, path
        wait_until(lambda: simulator.ask("/metadata/chatcmpl-1") == {"grade": "A"})
        process.send_signal(signal.SIGTERM)
        log = b"".join(process.communicate())
    assert process.returncode == 0
    for token in (TOKEN, NEXT_TOKEN, PAGE_TOKEN):
        assert token.encode() not in log


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask another process until it is so."""
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError


def test_without_a_token_there_is_no_door(command: Command) -> None:
    done = command.run("intake")
    assert (done.returncode, done.stderr.split(":")[1]) == (2, " METASYNC_INTAKE_TOKEN is not set")
    again = Command(command.folder, {"METASYNC_INTAKE_TOKEN": TOKEN}).run("intake")
    assert (again.returncode, again.stderr.split(":")[1]) == (2, " METASYNC_HTTP_PORT is not set")
    same = {"METASYNC_INTAKE_TOKEN": f"x,{TOKEN}", "METASYNC_HTTP_TOKEN": TOKEN, "METASYNC_HTTP_PORT": "0"}
    third = Command(command.folder, same).run("intake")
    assert third.returncode == 2
    assert "METASYNC_INTAKE_TOKEN must not be METASYNC_HTTP_TOKEN" in third.stderr
    for bad in ("a,,b", ",", "a, ,b", "ä"):
        fourth = Command(command.folder, {"METASYNC_INTAKE_TOKEN": bad}).run("intake")
        assert fourth.returncode == 2
        assert "METASYNC_INTAKE_TOKEN" in fourth.stderr


def test_an_intake_that_cannot_use_its_store_says_so_before_anything_is_sent(command: Command) -> None:
    settings = {
        "METASYNC_HTTP_PORT": "0",
        "METASYNC_INTAKE_TOKEN": TOKEN,
        "METASYNC_QUEUE_URL": "sqlite:///no/where.db",
    }
    with stopped(Command(command.folder, settings).start("intake")) as process:
        told = wait_for_event(process, "store.unavailable")
        assert told["operation"] == "begin"
        assert str(command.folder / "no" / "where.db") in told["error"]
        wait_for_event(process, "web.started")


def test_an_intake_takes_changes_and_applies_none_and_ends_in_order(command: Command) -> None:
    with an_intake(command) as (door, process):
        assert door.send([line(i) for i in range(10)])[0] == 200
        for path, expected in (("/livez", 200), ("/readyz", 200), ("/metrics", 404), ("/", 404), ("/changes", 405)):
            door.connection.request("GET", path)
            answer = door.connection.getresponse()
            answer.read()
            assert answer.status == expected, path
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    status = json.loads(command.run("status", "--json").stdout)
    assert (status["pending"], status["in_flight"]) == (10, 0)


def test_what_was_answered_with_200_is_there_after_a_kill(command: Command) -> None:
    with an_intake(command) as (door, process):
        answered = 0
        for batch in range(20):
            answered += door.send([line(batch * 100 + i) for i in range(100)])[1]["added"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    assert answered == 2_000
    assert json.loads(command.run("status", "--json").stdout)["pending"] == 2_000


class BrokenQueue(MemoryQueue):
    """A queue that fails as it is told to, or waits."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.waiting = asyncio.Semaphore(0)

    async def put(self, changes: Changes, *, batch: str | None = None, urgent: bool = False) -> Stored:
        self.waiting.release()
        await self.may_go_on.wait()
        if self.failure:
            raise self.failure
        return await super().put(changes, batch=batch, urgent=urgent)


@asynccontextmanager
async def inside(queue: MemoryQueue, *, max_pending: int | None = None) -> AsyncIterator[Door]:
    """A door in the test's own process."""
    terms = Terms([TOKEN], "merge", max_pending)
    async with receiving(queue, terms, host="127.0.0.1", port=0, grace_seconds=20) as port:
        with closing(Door(port)) as door:
            yield door


async def test_who_has_no_token_is_told_that_the_store_is_away_and_not_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise QueueUnavailable("no answer from secret-host")

    monkeypatch.setattr(MemoryQueue, "read_notes", away)
    async with inside(MemoryQueue()) as door:

        def told(headers: dict[str, str]) -> object:
            door.connection.request("GET", "/readyz", headers=headers)
            with door.connection.getresponse() as answer:
                return answer.status, json.load(answer)["failing"]

        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert await asyncio.to_thread(told, {}) == (503, {"store": "send the token to see why"})
        assert await asyncio.to_thread(told, bearer) == (503, {"store": "no answer from secret-host"})


@pytest.mark.parametrize("packed", [False, True])
async def test_a_long_body_that_finds_no_further_thread_is_to_be_sent_again(
    monkeypatch: pytest.MonkeyPatch, *, packed: bool
) -> None:
    queue = MemoryQueue()
    body = lines(*[line(number) for number in range(3_000)]).encode()
    text = gzip.compress(body, compresslevel=0) if packed else body
    given = {"Content_Encoding": "gzip"} if packed else {}
    async with inside(queue) as door:
        await asyncio.to_thread(door.send, line(0))  # the default executor's thread, for what follows
        with monkeypatch.context() as limited:
            limited.setattr("concurrent.futures.ThreadPoolExecutor.submit", _no_thread)
            status, said = await _sent(door, text, given)
            assert (status, "nothing was stored: try again" in said["error"]) == (503, True)
            assert door.headers["Retry-After"]
        assert (await queue.status()).pending == 1
        assert (await _sent(door, text, given))[0] == 200


def _no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")  # as it is said at a limit of processes


async def _sent(door: Door, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """Send from a thread that is not the event loop's."""
    done = asyncio.get_running_loop().create_future()
    threading.Thread(
        target=lambda: done.get_loop().call_soon_threadsafe(done.set_result, door.send(body, ND, **headers))
    ).start()
    found: tuple[int, Any] = await done
    return found


async def test_while_the_store_is_away_it_is_said_when_to_come_again() -> None:
    queue = BrokenQueue()
    async with inside(queue) as door:
        queue.failure = QueueUnavailable("the queue at secret-host did not answer")
        status, problem = await asyncio.to_thread(door.send, line(1))
        assert (status, problem) == (
            503,
            {"error": "the store is unavailable: it is not known what was stored, try again"},
        )
        assert door.headers["Retry-After"] == "5"
        queue.failure = QueueError("it makes no sense")
        assert (await asyncio.to_thread(door.send, line(1)))[0] == 500
        queue.failure = None
        assert (await asyncio.to_thread(door.send, line(1)))[0] == 200


async def test_no_more_are_taken_than_may_be_pending() -> None:
    queue = MemoryQueue()
    await queue.put([line(i) for i in range(3)])
    async with inside(queue, max_pending=3) as door:
        status, problem = await asyncio.to_thread(door.send, line(4))
        assert (status, problem) == (503, {"error": "3 changes are pending: try again when there are fewer"})
        assert door.headers["Retry-After"] == "30"
    async with inside(queue, max_pending=4) as door:
        assert (await asyncio.to_thread(door.send, line(4)))[0] == 200


def send_once(port: int, body: bytes) -> tuple[int, Any]:
    with closing(Door(port)) as door:
        return door.send(body, ND, Content_Encoding="gzip")


async def test_large_bodies_are_parsed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Semaphore(0)

    class Watched(Room):
        async def take(self, size: int) -> None:
            asked.release()
            await super().take(size)

    monkeypatch.setattr("worker.web.intake.Room", Watched)
    queue = BrokenQueue()
    queue.may_go_on.clear()
    large = gzip.compress(lines(*(line(i, metadata={"note": "x" * 500}) for i in range(9_000))).encode())
    async with inside(queue) as door, asyncio.TaskGroup() as group:
        sending = [group.create_task(asyncio.to_thread(send_once, door.port, large)) for _ in range(2)]
        for _ in sending:
            await asked.acquire()
        await queue.waiting.acquire()
        small = group.create_task(asyncio.to_thread(send_once, door.port, gzip.compress(lines(line(1)).encode())))
        await asked.acquire()
        assert queue.waiting.locked()  # neither the second, nor what came after it
        queue.may_go_on.set()
        assert [(await each)[0] for each in (*sending, small)] == [200, 200, 200]


async def test_bodies_that_are_under_way_are_bounded_together() -> None:
    queue = BrokenQueue()
    queue.may_go_on.clear()
    packed = gzip.compress(lines(line(1)).encode())  # the size of compressed data is unknown
    async with inside(queue) as door, asyncio.TaskGroup() as group:
        sending = [group.create_task(asyncio.to_thread(send_once, door.port, packed)) for _ in range(4)]
        for _ in sending:
            await queue.waiting.acquire()
        status, problem = await asyncio.to_thread(send_once, door.port, packed)
        assert (status, problem) == (503, {"error": "there are too many requests at once: try again"})
        queue.may_go_on.set()
    assert [each.result()[0] for each in sending] == [200] * 4


async def test_a_request_that_is_under_way_is_answered_before_the_end() -> None:
    queue = BrokenQueue()
    queue.may_go_on.clear()
    async with asyncio.TaskGroup() as group, inside(queue) as door:
        sending = group.create_task(asyncio.to_thread(door.send, line(1)))
        await queue.waiting.acquire()
        asyncio.get_running_loop().call_later(0.2, queue.may_go_on.set)
    assert sending.result() == (200, {"added": 1, "duplicates": 0, "applied_before": 0, "refused": []})


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_BODY_SECONDS", 0.2)
    async with inside(MemoryQueue()) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        head = f"POST /changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {JSON}\r\n"
        writer.write(f"{head}Content-Length: 10\r\n\r\n[".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body did not come"}')


async def test_a_connection_that_is_used_outlives_those_of_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.web.connections._LIFETIME_SECONDS", 0.5)
    async with inside(MemoryQueue()) as door:
        stranger = socket.create_connection(("127.0.0.1", door.port), timeout=30)
        await asyncio.to_thread(door.send, line(1))
        used = door.connection.sock
        with suppress(ConnectionResetError), stranger:
            assert await asyncio.to_thread(stranger.recv, 1) == b""
        assert (await asyncio.to_thread(door.send, line(2)))[0] == 200
        assert door.connection.sock is used


async def test_a_fault_of_ours_is_an_answer_without_words() -> None:
    queue = BrokenQueue()
    queue.failure = LookupError("secret")
    async with inside(queue) as door:
        assert await asyncio.to_thread(door.send, line(1)) == (500, "Internal Server Error\n")


def test_where_the_queue_is_the_same_a_worker_applies_what_another_process_takes(command: Command) -> None:
    with running_simulator() as simulator:
        simulator.ask("/seed", {"ids": ["chatcmpl-1"]})
        with an_intake(command) as (door, _):
            door.send(line(1, mode="replace"))
            settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url}
            assert Command(command.folder, settings).run("run", "--drain").returncode == 0
        assert simulator.ask("/metadata/chatcmpl-1") == {"grade": "A"}


async def test_sqlite_is_written_by_several_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with open_queue(url) as queue:
        terms = Terms([TOKEN], "merge", None)
        async with receiving(queue, terms, host="127.0.0.1", port=0, grace_seconds=20) as port:

            def send(worker: int) -> int:
                with closing(Door(port)) as door:
                    batches = [[line(i, change_id=f"{worker}-{i}-{n}") for i in range(50)] for n in range(10)]
                    return sum(door.send(batch)[1]["added"] for batch in batches)

            assert sum(await asyncio.gather(*[asyncio.to_thread(send, i) for i in range(8)])) == 4_000
        assert (await queue.status()).pending == 4_000
