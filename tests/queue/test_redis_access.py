"""URLs, passwords, permissions, TLS, and servers that cannot be the queue: refused in one clear sentence."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
import trustme

from tests.queue.helpers import EVERY_LETTER, bury, change, changes, claim, pending_labels
from tests.queue.redis_proxy import Proxy
from tests.queue.redis_server import Place, RedisServer, a_place, running
from worker.changes import MetadataChange
from worker.queue import (
    PendingSelection,
    QueueMisnamed,
    QueueUnavailable,
    QueueUnusable,
    Revived,
    Sample,
    Settlement,
    Withdrawn,
    migration_sql,
    open_queue,
)
from worker.queue.redis import RedisQueue
from worker.queue.redis.address import Address, read_url

PASSWORD = "s3cret-p@ss"
QUOTED = "s3cret-p%40ss"

# The rights that docs/redis.md asks for, with these keys: metasync:*
CATEGORIES = ["+@hash", "+@list", "+@set", "+@sortedset", "+@stream"]
COMMANDS = ["+time", "+pexpire", "+fcall", "+function|load", "+info", "+config|get"]


async def allow(server: RedisServer, *changes: str) -> str:
    """Make a user with the documented rights, changed like this; return the URL with name and password."""
    categories = [*CATEGORIES, *(each for each in changes if "@" in each)]
    commands = [*COMMANDS, *(each for each in changes if "@" not in each)]
    async with server.client() as client:
        await client.acl_setuser(
            "worker",
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            keys=["metasync:*"],
            categories=categories,
            commands=commands,
        )
    return server.url(user=f"worker:{QUOTED}@")


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as place:
        yield place


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address("localhost")),
        ("redis://localhost/", Address("localhost")),
        ("redis://10.0.0.1:7000/5", Address("10.0.0.1", 7000, 5)),
        ("redis://[::1]:7000", Address("::1", 7000)),
        (f"redis://:{QUOTED}@h", Address("h", password=PASSWORD)),
        (f"redis://me:{QUOTED}@h", Address("h", username="me", password=PASSWORD)),
        ("redis://h?prefix=labels", Address("h", prefix="labels")),
        ("rediss://h", Address("h", tls=True)),
    ],
)
def test_a_url_says_where_the_queue_lies(url: str, address: Address) -> None:
    assert read_url(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis:", "the queue URL must be redis://"),
        ("redis://", "the queue URL must be redis://"),
        ("redis:///0", "the queue URL must be redis://"),
        ("redis://h:port", "the queue URL must be redis://"),
        ("redis://h:99999", "the queue URL must be redis://"),
        ("redis://h/name", "the queue URL must be redis://"),
        ("redis://h/0/1", "the queue URL must be redis://"),
        ("redis://h/²", "the queue URL must be redis://"),
        ("redis://h#fragment", "the queue URL must be redis://"),
        ("redis://h?prefix", "the queue URL must be redis://"),
        ("redis://[::1", "the queue URL must be redis://"),
        ("redis://h?shards=1", "a Redis queue has no shards"),
        ("redis://h?prefix=", "prefix must be"),
        ("redis://h?prefix=a{b", "prefix must be"),
        ("redis://h?timeout=5", "takes prefix, ssl_ca_certs, ssl_certfile, ssl_keyfile, not 'timeout'"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs is for rediss://"),
        ("rediss://h?ssl_ca_certs=/missing/ca.pem", "ssl_ca_certs: there is no file '/missing/ca.pem'"),
        ("rediss://h?ssl_cert_reqs=none", "not 'ssl_cert_reqs'"),
    ],
)
async def test_a_url_of_another_form_is_refused_without_showing_what_is_secret(url: str, reason: str) -> None:
    url = url.replace("redis://h", f"redis://me:{QUOTED}@h")
    with pytest.raises(QueueMisnamed, match=reason) as refused:
        async with open_queue(url):
            pass

    assert "s3cret" not in str(refused.value)


async def test_a_redis_url_opens_a_queue(place: Place) -> None:
    async with open_queue(place.url) as queue:
        await queue.put([change("c-1")])
        assert await pending_labels(queue) == {"c-1": ["x"]}
        assert repr(queue).endswith(" [open]>")


async def test_queues_of_different_prefixes_share_nothing() -> None:
    async with a_place() as one, a_place() as two, open_queue(one.url) as first, open_queue(two.url) as second:
        await first.put([change("c-1", change_id="line-1")])

        assert (await second.put([change("c-1", change_id="line-1")])).added == 1
        assert await pending_labels(first) == await pending_labels(second) == {"c-1": ["x"]}


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost"])
def test_the_library_can_be_printed_to_be_loaded_by_hand(url: str) -> None:
    assert migration_sql(url).startswith("#!lua name=metasync_")


class _Uninstalled(MetaPathFinder):
    """A module finder before all others, which finds no redis."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:  # noqa: ARG004 -- as it is called
        if name == "redis":
            raise ModuleNotFoundError(name=name)


async def test_a_driver_that_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in [name for name in sys.modules if name.startswith(("worker.queue.redis", "redis"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [_Uninstalled(), *sys.meta_path])

    with pytest.raises(QueueMisnamed, match=r"this queue needs redis: install metasync with its extra redis"):
        async with open_queue("redis://localhost"):
            pass


@pytest.mark.parametrize("user", ["", f":{QUOTED}x@", f"nobody:{QUOTED}@"])
async def test_a_wrong_password_is_refused_and_not_shown(tmp_path: Path, user: str) -> None:
    with running(tmp_path, {"requirepass": PASSWORD}) as server:
        with pytest.raises(
            QueueUnusable, match="the user's name or the password is wrong, or one is needed"
        ) as refused:
            await RedisQueue.open(server.url(user=user))

        assert "s3cret" not in str(refused.value)
        async with await RedisQueue.open(server.url(user=f":{QUOTED}@")) as queue:
            assert (await queue.put([change("c-1")])).added == 1
            assert "s3cret" not in repr(queue)


async def test_a_password_that_is_not_wanted_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as server, pytest.raises(QueueUnusable, match="the password is wrong"):
        await RedisQueue.open(server.url(user=f"me:{QUOTED}@"))


async def test_the_permissions_that_are_documented_are_enough(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with await RedisQueue.open(await allow(server)) as queue:
            await queue.put([change("c-1", change_id="line-1")])
            assert await pending_labels(queue) == {"c-1": ["x"]}
            await queue.write_note("name", "text")
            assert (await queue.take_quota(1, per_minute=60, ahead_seconds=1)).requests == 1
            await queue.record_sample(Sample(1, 0.5, 2.0, None))
            assert (await queue.status()).in_flight == 1
            await bury(queue, change("c-2"))
            assert await queue.retry_dead(EVERY_LETTER) == Revived(1, 0)
            dated = MetadataChange("c-3", {"label": "x"}, change_id="mine", as_of=5.0)
            for pending in ([dated], [change("c-4"), change("c-4")]):
                await queue.put(pending, batch="b", urgent=True)
                [claimed] = await queue.claim(9, lease_seconds=60, owner="worker", place="urgent")
                await queue.settle([Settlement(claimed, applied=[claimed.changes[0].number])], remember=True)
            await queue.put(changes("c-5", range(700)))
            await queue.put(changes("c-5", range(3)), batch="b")
            assert [each.batch async for each in queue.pending_changes(PendingSelection(batch="b"))] == ["b"] * 4
            assert await queue.withdraw(PendingSelection(batch="b")) == Withdrawn(4, 0)
            assert await queue.withdraw(PendingSelection(change_id="mine")) == Withdrawn(0, 0)
            await queue.put(MetadataChange("c-3", {"label": "x"}, as_of=1.0))
            assert [each.newest_as_of for each in await claim(queue) if each.completion_id == "c-3"] == [5.0]
            assert [batch.applied for batch in await queue.batches()] == [2]
            await asyncio.sleep(1.1)  # its clock is the server's, and counts what is remembered in seconds
            assert await queue.forget(0.0, most=10) == 3


async def test_a_number_of_a_database_needs_one_permission_more_as_is_documented(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        url = (await allow(server)).removesuffix("/0") + "/1"
        with pytest.raises(QueueUnusable, match="its user may not do what the queue needs"):
            await RedisQueue.open(url)
        await allow(server, "+select")
        async with await RedisQueue.open(url) as queue:
            await queue.put([change("c-1")])
            assert await pending_labels(queue) == {"c-1": ["x"]}


@pytest.mark.parametrize("without", ["-fcall", "-function|load", "-@hash"])
async def test_a_user_who_may_not_do_what_is_needed_is_told_so(tmp_path: Path, without: str) -> None:
    with running(tmp_path) as server:
        url = await allow(server, without)
        with pytest.raises(QueueUnusable, match="its user may not do what the queue needs"):
            await RedisQueue.open(url)


async def test_settings_that_may_not_be_looked_at_are_no_warning(tmp_path: Path) -> None:
    with running(tmp_path, {"appendonly": "yes"}) as server:
        async with await RedisQueue.open(await allow(server, "-config|get")) as queue:
            assert queue.warnings == ()


async def test_a_server_that_may_not_be_asked_about_itself_is_warned_about(tmp_path: Path) -> None:
    with running(tmp_path, {"appendonly": "yes"}) as server:
        async with await RedisQueue.open(await allow(server, "-info")) as queue:
            [warning] = queue.warnings

    assert "does not say how it persists" in warning


async def test_a_database_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as server, pytest.raises(QueueMisnamed, match="it has no database of this number"):
        await RedisQueue.open(f"redis://127.0.0.1:{server.port}/16")


async def test_keys_of_another_program_are_left_alone(place: Place) -> None:
    await place.client.set(f"{place.base}due", "theirs")

    async with await RedisQueue.open(place.url) as queue:
        with pytest.raises(QueueMisnamed, match=r"another program has keys of these names; .* \?prefix=NAME"):
            await queue.claim(1, lease_seconds=60, owner="worker")
    assert await place.client.get(f"{place.base}due") == b"theirs"


async def test_a_queue_of_a_newer_release_is_refused(place: Place) -> None:
    await place.client.hset(f"{place.base}queue", "schema", 2)

    with pytest.raises(QueueUnusable, match="a newer metasync wrote it"):
        await RedisQueue.open(place.url)


@asynccontextmanager
async def pretending(answers: Mapping[bytes, bytes]) -> AsyncIterator[str]:
    """Serve something that is not Redis: it gives these answers to requests with these words, and OK to others."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(65_536):
            known = (answer for words, answer in answers.items() if words in sent)
            writer.write(next(known, b"+OK\r\n" * sent.count(b"*")))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


def greeting(version: bytes) -> dict[bytes, bytes]:
    return {
        b"HELLO": b"*2\r\n$7\r\nversion\r\n$%d\r\n%b\r\n" % (len(version), version),
        b"\r\nINFO\r\n": b"$0\r\n\r\n",
        b"CONFIG": b"-ERR unknown command\r\n",
    }


async def test_a_server_that_greets_no_one_is_too_old() -> None:
    async with pretending({b"HELLO": b"-ERR unknown command `HELLO`, with args beginning with: \r\n"}) as url:
        with pytest.raises(QueueUnusable, match="Redis 7 or newer, or Valkey, is needed"):
            await RedisQueue.open(url)


async def test_a_server_whose_info_is_disabled_serves_and_says_that_it_hides_how_it_persists(tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text('rename-command INFO ""\n')
    with running(tmp_path, {"include": str(tmp_path / "more.conf")}) as server:
        async with await RedisQueue.open(server.url()) as queue:
            assert (await queue.put([change("c-1")])).added == 1
            [warning] = queue.warnings
            assert "does not say how it persists" in warning


async def test_a_server_without_a_free_connection_is_named_as_that(tmp_path: Path) -> None:
    with running(tmp_path, {"maxclients": "1"}) as server:
        async with server.client() as client:
            await client.ping()
            with pytest.raises(QueueUnavailable, match=r"maxclients|max number of clients"):
                await RedisQueue.open(server.url())


async def test_a_server_that_is_too_old_is_refused() -> None:
    async with pretending(greeting(b"6.2.14")) as url:
        with pytest.raises(QueueUnusable, match=r"it is Redis 6\.2\.14; 7 or newer, or Valkey, is needed"):
            await RedisQueue.open(url)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (b"ERR unknown command 'FCALL', with args: 'secret'", QueueUnusable, "does not know FCALL: Redis 7"),
        (b"ERR Unknown command called from script script: f", QueueUnusable, "a command that functions call: Redis 7"),
        (b"DENIED Redis is running in protected mode", QueueUnusable, "it is in protected mode"),
        (b"NOPERM this user has no permissions", QueueUnusable, "its user may not do"),
        (b"NOAUTH Authentication required.", QueueUnusable, "the password is wrong, or one is needed"),
        (b"CLUSTERDOWN Hash slot not served", QueueMisnamed, "it is a node of a cluster"),
        (b"TRYAGAIN Multiple keys request during rehashing", QueueMisnamed, "it is a node of a cluster"),
        (b"MOVED 3999 127.0.0.1:6381", QueueMisnamed, "it is a node of a cluster"),
        (b"ASK 3999 127.0.0.1:6381", QueueMisnamed, "it is a node of a cluster"),
        (b"ERR max number of clients reached", QueueUnavailable, "cannot be reached: max number of clients reached"),
        (b"ERR something went wrong", QueueUnavailable, "it answered with an error: something went wrong"),
        (b"STRANGE and new", QueueUnavailable, "it answered with an error: STRANGE and new"),
    ],
)
async def test_a_refusal_says_whether_waiting_helps(answer: bytes, kind: type[Exception], reason: str) -> None:
    async with pretending(greeting(b"7.4.0") | {b"FCALL": b"-%b\r\n" % answer}) as url:
        with pytest.raises(kind, match=reason) as refused:
            await RedisQueue.open(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("repeated", [b'pa"ss/w0rd', b'pa\\"ss/w0rd', b"pa%22ss%2fw0rd", b"." * 190 + b'pa"ss/w0rd'])
async def test_a_password_that_a_server_repeats_is_not_shown(repeated: bytes) -> None:
    async with pretending(greeting(b"7.4.0") | {b"FCALL": b"-ERR no <%b> here\r\n" % repeated}) as url:
        with pytest.raises(QueueUnavailable, match=r"<\.*\*\*\*") as refused:
            await RedisQueue.open(url.replace("//", "//:pa%22ss%2Fw0rd@"))

    assert not any(part in str(refused.value) for part in ("pa", "w0rd"))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0", b""])
async def test_something_that_is_no_redis_at_all_is_unavailable(answer: bytes) -> None:
    async with pretending({b"": answer}) as url:
        with pytest.raises(QueueUnavailable, match="cannot be used now"):
            await RedisQueue.open(url, timeout_seconds=0.3)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_tls_is_spoken_to_a_server_whose_certificate_is_trusted(tmp_path: Path, tls: ssl.SSLContext) -> None:
    with running(tmp_path) as server:
        async with (
            Proxy(server.port, tls=tls) as wrapped,
            await RedisQueue.open(wrapped.url(ssl_ca_certs=f"{tmp_path}/ca.pem")) as queue,
        ):
            assert (await queue.put([change("c-1")])).added == 1


async def test_a_certificate_that_is_not_trusted_is_refused(tmp_path: Path, tls: ssl.SSLContext) -> None:
    with running(tmp_path) as server:
        async with Proxy(server.port, tls=tls) as wrapped:
            with pytest.raises(QueueUnusable, match="its certificate is not trusted"):
                await RedisQueue.open(wrapped.url())
