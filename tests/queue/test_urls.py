"""Options in a queue's URL that are mistakes, or that other clients of the store know."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests.needs import permitted
from tests.queue.helpers import change
from tests.queue.postgres_proxies import Network
from tests.queue.postgres_server import lent_database
from tests.queue.stores import STORES
from worker.queue import QueueMisnamed, QueueUnavailable, migration_sql, open_queue
from worker.queue.postgres.address import Address
from worker.queue.postgres.errors import explained
from worker.queue.redis.address import read_url

BASE = "postgresql://me:secret@db.example/app"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with lent_database() as url:
        yield url


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("store", STORES)
async def test_a_queue_is_opened_once(tmp_path: Path, store: str) -> None:
    async with STORES[store](tmp_path) as url:
        opening = open_queue(url)
        async with opening as queue:
            with pytest.raises(RuntimeError, match=r"has been entered already: call open_queue for each"):
                await opening.__aenter__()
            assert (await queue.put([change("c-1")])).added == 1
        with pytest.raises(RuntimeError, match=r"has been entered already: call open_queue for each"):
            await opening.__aenter__()


async def test_what_could_not_be_opened_is_closed_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable, match="there is no directory"):
        async with open_queue(f"sqlite:///{tmp_path}/none/queue.db"):
            pass


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "{} ", " {}", "\t{}\n\n"])
async def test_what_surrounds_a_url_is_no_part_of_it(tmp_path: Path, around: str) -> None:
    async with open_queue(around.format(f"sqlite:///{tmp_path}/my queue.db")) as queue:
        await queue.put([change("c-1")])

    assert names_in(tmp_path) == ["my queue.db"]
    assert migration_sql(around.format("redis://localhost")) == migration_sql("redis://localhost")


@pytest.mark.parametrize(
    "url", ["sqlite:///a\nb.db", "postgresql://u:se\rcret@host/d", "redis://:se\0cret@host", "sqlite:///a\x9fb.db"]
)
async def test_a_control_character_within_is_refused_and_nothing_of_it_shown(url: str) -> None:
    with pytest.raises(QueueMisnamed, match=r"holds a control character \(U\+00(0A|0D|00|9F)\): take it out") as caught:
        async with open_queue(url):
            pass
    assert "cret" not in str(caught.value)


async def test_a_control_character_that_is_escaped_is_no_part_of_a_path(tmp_path: Path) -> None:
    with pytest.raises(QueueMisnamed, match="must be sqlite:///"):
        async with open_queue(f"sqlite:///{tmp_path}/queue.db%0A"):
            pass


@pytest.mark.parametrize(
    ("options", "ignored"),
    [
        ("channel_binding=require", ["channel_binding"]),
        ("channel_binding=prefer&gssencmode=disable&load_balance_hosts=disable", []),
        ("keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=9", 5),
        ("gssencmode=require", ["gssencmode"]),
        ("load_balance_hosts=random", ["load_balance_hosts"]),
        ("require_auth=scram-sha-256", ["require_auth"]),
        ("connect_timeout=3&fallback_application_name=app", []),
    ],
)
async def test_what_libpq_knows_is_translated_or_named_as_ignored(
    url: str, options: str, ignored: list[str] | int
) -> None:
    async with open_queue(f"{url}{'&' if '?' in url else '?'}{options}") as queue:
        await queue.put([change("c-1")])  # the server does not get to see it
        names = [warning.partition(",")[0] for warning in queue.warnings]

    assert names == ignored if isinstance(ignored, list) else len(names) == ignored


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("", "metasync"),
        ("fallback_application_name=app", "app"),
        ("application_name=mine&fallback_application_name=app", "mine"),
    ],
)
def test_a_fallback_for_the_application_s_name_is_one(options: str, name: str) -> None:
    dsn = Address.parse(f"{BASE}?{options}").dsn

    assert f"application_name={name}" in dsn
    assert "fallback" not in dsn


@pytest.mark.parametrize(("text", "seconds"), [("3", 3.0), ("0", None), ("-1", None)])
def test_a_time_to_connect_is_read_as_libpq_does(text: str, seconds: float | None) -> None:
    assert Address.parse(f"{BASE}?connect_timeout={text}").connect_seconds == seconds


def test_a_time_to_connect_that_is_no_number_is_refused() -> None:
    with pytest.raises(QueueMisnamed, match="connect_timeout of the queue URL must be a number"):
        Address.parse(f"{BASE}?connect_timeout=soon")


@pytest.mark.parametrize("repeated", ["p%40ss%2Fw0rd", "p@ss/w0rd", "p@ss\\/w0rd", "t%22opsecret", 't\\"opsecret'])
def test_a_password_that_a_server_repeats_is_not_shown(repeated: str) -> None:
    address = Address.parse("postgresql://me:p%40ss%2Fw0rd@db.example/app?sslpassword=t%22opsecret")
    error = explained(OSError(f"no <{repeated}> here"), address.shown, address.secrets)

    assert str(error).endswith("it cannot be reached (no <***> here)")
    assert "w0rd" not in repr(address)
    assert "opsecret" not in repr(address)


async def test_a_server_that_does_not_greet_is_given_up_after_the_time_to_connect(url: str) -> None:
    async with Network.before(url) as (network, address):
        network.silence()
        with pytest.raises(QueueUnavailable, match=r"cannot be reached .*longer than connect_timeout"):
            async with open_queue(f"{address}&connect_timeout=1"):
                pass


def test_the_system_s_certificates_may_be_asked_for() -> None:
    address = Address.parse(f"{BASE}?sslrootcert=system")

    assert address.tls is not None
    assert address.tls.check_hostname
    assert "ssl" not in address.dsn
    with pytest.raises(QueueMisnamed, match="goes with sslmode=verify-full alone"):
        Address.parse(f"{BASE}?sslrootcert=system&sslmode=require")
    with pytest.raises(QueueMisnamed, match="sslcert or sslkey, options of the queue URL, cannot be used"):
        Address.parse(f"{BASE}?sslrootcert=system&sslcert=/nowhere.crt")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority, two keys, the certificate of one, and a file that is none of these."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("client", "other"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    (tmp_path / "text.pem").write_text("no certificate")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("sslmode=verify-full&sslrootcert={}/none.pem", "sslrootcert, an option of the queue URL: .*none.pem'"),
        ("sslmode=require&sslrootcert={}/text.pem", "sslrootcert, an option .*text.pem' cannot be used: "),
        ("sslmode=require&sslcrl={}/none.pem", "sslcrl, an option"),
        ("sslcert={0}/none.pem&sslkey={0}/client.key", "sslcert or sslkey, .*No such file"),
        ("sslcert={0}/client.pem&sslkey={0}/other.key", "sslcert or sslkey, .*mismatch"),
    ],
)
def test_a_file_of_certificates_that_cannot_be_used_is_named_for_postgres(
    certificates: Path, options: str, reason: str
) -> None:
    with pytest.raises(QueueMisnamed, match=reason):
        Address.parse(f"{BASE}?{options.format(certificates)}")


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=verify-full&sslrootcert={0}/ca.pem&sslcert={0}/client.pem&sslkey={0}/client.key",
        "sslmode=prefer&sslrootcert={}/none.pem",  # the driver does not look at them
        "sslmode=disable&sslcert={0}/none.pem&sslkey={0}/none.key",
    ],
)
def test_files_of_certificates_that_can_be_used_or_are_not_are_left_to_the_driver(
    certificates: Path, options: str
) -> None:
    dsn = Address.parse(f"{BASE}?{options.format(certificates)}").dsn

    assert all(option.partition("=")[0] in dsn for option in options.split("&"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ssl_ca_certs={}/text.pem", "ssl_ca_certs, an option of the queue URL: .*text.pem' cannot be used"),
        ("ssl_certfile={0}/client.pem&ssl_keyfile={0}/other.key", "ssl_certfile or ssl_keyfile, .*mismatch"),
        ("ssl_keyfile={}/client.key", "ssl_keyfile goes with ssl_certfile"),
    ],
)
def test_a_file_of_certificates_that_cannot_be_used_is_named_for_redis(
    certificates: Path, options: str, reason: str
) -> None:
    with pytest.raises(QueueMisnamed, match=reason):
        read_url(f"rediss://h?{options.format(certificates)}")


# The interpreter's own files may be out of reach for the other user: so all that is needed is imported before.
_AS_NOBODY_KNOWN = """
import asyncio, getpass, os, sys
from worker.queue import QueueMisnamed, open_queue
from worker.queue.postgres import PostgresQueue

async def ask(url):
    async with open_queue(url) as queue:
        print((await queue.status()).pending)

getpass.getuser()
os.environ.clear()
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
try:
    asyncio.run(ask(sys.argv[1]))
except QueueMisnamed as error:
    print(error)
"""


@permitted(os.geteuid() == 0, "only root can become another user")
@pytest.mark.parametrize(
    ("user", "words"),
    [("postgres@", b"0\n"), ("", b"names no user, and the one that this process runs as has no name")],
)
async def test_a_process_whose_user_has_no_name_needs_one_in_the_url(url: str, user: str, words: bytes) -> None:
    async with Network.before(url) as (_, address):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _AS_NOBODY_KNOWN, address.replace("postgres@", user)),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await child.communicate()

    assert child.returncode == 0
    assert words in said


@pytest.mark.parametrize("url", ["postgresql://h:99999/d", "postgresql://h:1,i:65536/d", "postgresql:///d?port=70000"])
async def test_a_port_that_there_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(QueueMisnamed, match="at most 65535"):
        Address.parse(url)


async def test_a_working_directory_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(QueueMisnamed, match="working directory, which is not there any more"):
        async with open_queue("sqlite:///queue.db"):
            pass
