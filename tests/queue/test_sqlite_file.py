"""Opening a SQLite queue: what is created, what is refused and left untouched, and the messages."""

import asyncio
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from tests.queue.helpers import change, claim, pending_labels
from worker.queue import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, migration_sql, open_queue
from worker.queue.sqlite import SqliteQueue, file
from worker.queue.sqlite.file import APPLICATION_ID
from worker.queue.statements import read_migrations

ROOT = Path(__file__).parents[2]


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


async def refusal(url: str, kind: type[QueueError] = QueueUnusable) -> str:
    """Try to open it, and return the error's sentence."""
    with pytest.raises(kind) as caught:
        async with open_queue(url, timeout_seconds=5):
            pass
    message = str(caught.value)
    assert "\n" not in message
    return message


def pragma(path: Path, name: str) -> object:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.pragma(name)
    finally:
        connection.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@contextmanager
def unprivileged() -> Iterator[Path]:
    """An empty folder, and for a while the rights of a user other than root, whom nothing stops."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    uid = os.geteuid()
    nobody = 65534
    try:
        if uid == 0:
            os.chown(folder, nobody, -1)
            os.seteuid(nobody)
        yield folder
    finally:
        if uid == 0:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


async def test_a_missing_file_is_made_with_our_mark_and_schema(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with await SqliteQueue.open(url_of(path)) as queue:
        assert repr(queue) == f"<SqliteQueue {path} [open]>"

    assert repr(queue) == f"<SqliteQueue {path} [closed]>"
    assert names(tmp_path) == ["queue.db"]
    assert pragma(path, "application_id") == APPLICATION_ID
    assert pragma(path, "user_version") == read_migrations("worker.queue.sqlite")[-1][0]
    assert pragma(path, "journal_mode") == "wal"


async def test_an_empty_file_becomes_a_queue(tmp_path: Path) -> None:
    (tmp_path / "queue.db").touch()
    async with open_queue(url_of(tmp_path / "queue.db")) as queue:
        await queue.put([change("c-1")])
        assert len(await claim(queue)) == 1


async def test_changes_are_there_after_opening_again(tmp_path: Path) -> None:
    url = url_of(tmp_path / "queue.db")
    async with open_queue(url) as queue:
        await queue.put([change("c-1", "a")])
    async with open_queue(url) as queue:
        assert await pending_labels(queue) == {"c-1": ["a"]}


async def test_leases_of_a_worker_that_went_are_never_given_out_again(tmp_path: Path) -> None:
    leases = []
    for _ in range(3):
        async with open_queue(url_of(tmp_path / "queue.db")) as queue:
            await queue.put([change("c-1")])
            leases += [claimed.lease for claimed in await queue.claim(1, lease_seconds=0, owner="worker")]

    assert leases == sorted(set(leases))


async def test_three_slashes_are_a_relative_path_that_is_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_queue("sqlite:///relative.db") as queue:
        monkeypatch.chdir("/")
        await queue.put([change("c-1")])

    assert (tmp_path / "relative.db").is_file()


async def test_a_name_may_hold_any_character(tmp_path: Path) -> None:
    async with open_queue(url_of(tmp_path / "a%20b%3F%25#é'\".db")):
        pass

    assert (tmp_path / "a b?%#é'\".db").is_file()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://queue.db",
        "sqlite:///:memory:",
        "sqlite:///a%00b",
        "sqlite:///a\udc80",
    ],
)
async def test_a_url_of_another_form_is_refused(url: str) -> None:
    assert await refusal(url, QueueMisnamed) == "the queue URL must be sqlite:///relative.db or sqlite:////absolute.db"


async def test_options_in_the_url_are_refused(tmp_path: Path) -> None:
    assert "takes no options" in await refusal(url_of(tmp_path / "queue.db?timeout=5"), QueueMisnamed)
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["", "queue.db", "mysql://user:secret@host/db", "sqlite://[", "http://["])
async def test_a_url_of_no_known_store_is_refused_without_showing_it(url: str) -> None:
    message = await refusal(url, QueueMisnamed)

    assert "sqlite:///" in message
    assert "secret" not in message


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    message = await refusal(url_of(tmp_path / "missing" / "queue.db"))

    assert f"there is no directory {tmp_path / 'missing'}" in message
    assert names(tmp_path) == []


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "it is a directory" in await refusal(url_of(tmp_path), QueueMisnamed)


async def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert "name too long" in await refusal(url_of(tmp_path / ("x" * 300)))


@pytest.mark.parametrize("content", [b"x", b"completion_id,label\n" * 500, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(content)

    assert await refusal(url_of(path)) == f"{path} cannot be the queue: it is not a SQLite database"
    assert contents(tmp_path) == {"queue.db": content}


@pytest.mark.parametrize(
    "made_with",
    [
        "CREATE TABLE theirs (x)",
        "CREATE VIEW theirs AS SELECT 1",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 1",
    ],
)
async def test_a_database_of_another_program_is_refused_and_kept(tmp_path: Path, made_with: str) -> None:
    path = tmp_path / "theirs.db"
    connection = apsw.Connection(str(path))
    connection.execute(made_with)
    connection.close()
    before = contents(tmp_path)

    assert "database of another program" in await refusal(url_of(path), QueueMisnamed)
    assert contents(tmp_path) == before


async def test_a_dump_becomes_a_queue_by_the_documented_marks(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    async with open_queue(url_of(old)) as queue:
        await queue.put([change("c", label="kept")])
    with closing(sqlite3.connect(old)) as source, closing(sqlite3.connect(new)) as target:
        target.executescript("\n".join(source.iterdump()))
    assert "database of another program" in await refusal(url_of(new), QueueMisnamed)

    [marks] = re.findall("PRAGMA application_id[^']*", (ROOT / "docs/backup.md").read_text(encoding="utf-8"))
    with closing(sqlite3.connect(new)) as target:
        target.executescript(marks)
    async with open_queue(url_of(new)) as queue:
        assert await pending_labels(queue) == {"c": ["kept"]}
        await queue.put([change("c")])


async def test_a_log_that_another_program_left_is_kept(tmp_path: Path) -> None:
    """Its writer is killed, so that only the log has the last writes."""
    path = tmp_path / "theirs.db"
    script = (
        "import apsw, os, sys\n"
        "connection = apsw.Connection(sys.argv[1])\n"
        "connection.pragma('journal_mode', 'wal')\n"
        "connection.execute('CREATE TABLE theirs (x)')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False)  # noqa: ASYNC221 -- our own words
    before = contents(tmp_path)
    assert len(before["theirs.db-wal"]) > 0

    assert "database of another program" in await refusal(url_of(path), QueueMisnamed)
    after = contents(tmp_path)
    assert (after["theirs.db"], after["theirs.db-wal"]) == (before["theirs.db"], before["theirs.db-wal"])


async def test_a_newer_schema_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with open_queue(url_of(path)):
        pass
    newer = read_migrations("worker.queue.sqlite")[-1][0] + 1
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", newer)
    connection.close()
    before = contents(tmp_path)

    assert re.search(rf"newer metasync wrote it \(schema {newer}, .*upgrade", await refusal(url_of(path)))
    assert contents(tmp_path) == before


async def test_a_later_migration_is_run_once_and_keeps_what_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue.db"
    async with open_queue(url_of(path)) as queue:
        await queue.put([change("c-1", "a")])
    latest, _ = read_migrations("worker.queue.sqlite")[-1]
    later = (
        (latest + 1, f"ALTER TABLE change ADD COLUMN source TEXT; PRAGMA user_version = {latest + 1};"),
        (latest + 2, f"CREATE INDEX change_source ON change (source); PRAGMA user_version = {latest + 2};"),
    )
    monkeypatch.setattr(file, "read_migrations", lambda package: (*read_migrations(package), *later))

    async with open_queue(url_of(path)):
        assert pragma(path, "user_version") == latest + 2
    async with open_queue(url_of(path)) as queue:  # to add the column once more would fail
        await queue.put([change("c-1", "b")])
        assert await pending_labels(queue) == {"c-1": ["a", "b"]}


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queue.db"
    async with open_queue(url_of(path)):
        pass
    before = contents(tmp_path)
    latest, _ = read_migrations("worker.queue.sqlite")[-1]
    later = (latest + 1, f"PRAGMA user_version = {latest + 1}; DROP TABLE note; DROP TABLE missing;")
    with monkeypatch.context() as patch:
        patch.setattr(file, "read_migrations", lambda package: (*read_migrations(package), later))
        assert "no such table: missing" in await refusal(url_of(path))

    assert contents(tmp_path) == before
    async with open_queue(url_of(path)) as queue:
        assert await queue.read_notes() == {}


async def test_a_file_that_lost_a_table_is_refused_when_that_is_met(tmp_path: Path) -> None:
    async with open_queue(url_of(tmp_path / "queue.db")) as queue:
        connection = apsw.Connection(str(tmp_path / "queue.db"))
        connection.execute("DROP TABLE target")
        connection.close()

        with pytest.raises(QueueUnusable, match=r"schema is not what it should be .*no such table"):
            await queue.put([change("c-1")])


async def test_a_directory_that_cannot_be_written_is_refused() -> None:
    with unprivileged() as folder:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)

        assert "its directory cannot be written" in await refusal(url_of(folder / "queue.db"))
        assert names(folder) == []


async def test_a_file_that_cannot_be_written_is_refused() -> None:
    with unprivileged() as folder:
        path = folder / "queue.db"
        async with open_queue(url_of(path)):
            pass
        path.chmod(stat.S_IRUSR)
        before = contents(folder)

        assert "cannot be opened for writing" in await refusal(url_of(path))
        assert contents(folder) == before


async def test_a_file_that_is_moved_away_while_it_is_open_takes_no_more_changes(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with open_queue(url_of(path)) as queue:
        await queue.put([change("c-1")])
        path.rename(tmp_path / "moved.db")

        with pytest.raises(QueueUnusable, match="moved or deleted"):
            await queue.put([change("c-2")])


@pytest.mark.parametrize("deleted", [["-wal"], ["-wal", "-shm"], ["-shm"]])
async def test_a_log_that_is_deleted_while_it_is_open_takes_nothing_with_it(tmp_path: Path, deleted: list[str]) -> None:
    path = tmp_path / "queue.db"
    async with open_queue(url_of(path)) as queue, open_queue(url_of(path)) as idle:
        await queue.put([change("c-1", label="a")])
        assert (await idle.status()).pending == 1
        for ending in deleted:
            path.with_name(f"queue.db{ending}").unlink()
        await queue.put([change("c-1", label="b")])
        async with open_queue(url_of(path)) as other:
            await other.put([change("c-1", label="c")])
        await idle.put([change("c-1", label="d")])
        await queue.put([change("c-1", label="e")])

        async with open_queue(url_of(path)) as found:
            assert await pending_labels(found) == {"c-1": ["a", "b", "c", "d", "e"]}
    with closing(sqlite3.connect(path)) as left:
        assert left.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_log_that_was_left_behind_when_its_file_was_moved_is_kept(tmp_path: Path) -> None:
    killed = tmp_path / "killed" / "queue.db"
    killed.parent.mkdir()
    async with open_queue(url_of(tmp_path / "queue.db")) as queue:
        await queue.put([change("c", label="kept")])
        for ending in ("", "-wal"):  # as a worker that is killed leaves them
            shutil.copy(f"{tmp_path / 'queue.db'}{ending}", f"{killed}{ending}")
    aside = killed.rename(killed.with_name("aside.db"))

    for _ in range(2):
        assert "its log" in await refusal(url_of(killed))
        killed.touch()  # nor if another program has made an empty one

    aside.replace(killed)
    async with open_queue(url_of(killed)) as queue:
        assert await pending_labels(queue) == {"c": ["kept"]}


async def test_a_log_that_was_left_behind_where_a_symbolic_link_leads_to_is_kept(tmp_path: Path) -> None:
    killed, link = tmp_path / "killed.db", tmp_path / "link.db"
    async with open_queue(url_of(tmp_path / "queue.db")) as queue:
        await queue.put([change("c", label="kept")])
        shutil.copy(tmp_path / "queue.db-wal", f"{killed}-wal")
        held = (tmp_path / "queue.db").read_bytes()
    killed.touch()  # it was emptied
    link.symlink_to(killed)

    assert "its log" in await refusal(url_of(link))

    killed.write_bytes(held)
    async with open_queue(url_of(link)) as queue:
        assert await pending_labels(queue) == {"c": ["kept"]}


async def test_a_symbolic_link_that_leads_to_another_file_takes_no_log_from_the_one_before(tmp_path: Path) -> None:
    before, after, link = tmp_path / "before.db", tmp_path / "after.db", tmp_path / "link.db"
    link.symlink_to(before)
    async with open_queue(url_of(link)) as queue, open_queue(url_of(before)) as other:
        await other.put([change("c", label="before")])
        link.unlink()
        link.symlink_to(after)
        async with open_queue(url_of(after)):
            await queue.put([change("c", label="after")])
        await other.put([change("c", label="kept")])
        shutil.copytree(tmp_path, tmp_path / "left", symlinks=True)  # as if all were killed now

        async with open_queue(url_of(tmp_path / "left" / "before.db")) as found:
            assert await pending_labels(found) == {"c": ["before", "kept"]}
        async with open_queue(url_of(after)) as found:
            assert await pending_labels(found) == {"c": ["after"]}


async def test_a_file_of_two_names_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with open_queue(url_of(path)) as queue:
        assert queue.warnings == ()
    (tmp_path / "other.db").hardlink_to(path)

    async with open_queue(url_of(path)) as queue:
        [warning] = queue.warnings
    assert "2 names (hard links)" in warning


@pytest.mark.parametrize("name", ["queue.db", "a queue.db"])
async def test_a_file_that_is_mounted_without_its_folder_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mounts = tmp_path / "mountinfo"
    line = "36 35 98:0 {root} {place} rw,noatime master:1 - ext3 /dev/root rw\n"
    monkeypatch.setattr(file, "_MOUNTS", mounts)
    for place, warned in ((tmp_path, False), (tmp_path / name, True)):
        mounts.write_text(
            line.format(root="/", place="/") + line.format(root="/x", place=place).replace("a q", "a\\040q")
        )
        async with open_queue(url_of(tmp_path / name)) as queue:
            assert ["mounted alone" in warning for warning in queue.warnings] == [True] * warned


async def test_any_number_of_processes_may_make_the_file_together(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    script = (
        "import asyncio, sys\n"
        "from tests.queue.helpers import change\n"
        "from worker.queue import open_queue\n"
        "async def main():\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    async with open_queue(sys.argv[1]) as queue:\n"
        "        await queue.put([change('c-1')])\n"
        "asyncio.run(main())\n"
    )
    pipe = asyncio.subprocess.PIPE
    root = Path(__file__).parents[2]
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url_of(path), stdin=pipe, stdout=pipe, stderr=pipe, cwd=root
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
    ends = await asyncio.gather(*(child.communicate(b"go\n") for child in children))

    assert [child.returncode for child in children] == [0, 0, 0], ends
    async with open_queue(url_of(path)) as queue:
        assert (await queue.status()).pending == 3


@pytest.mark.parametrize("attempt", range(4))  # what can go wrong here goes wrong now and then
async def test_queues_of_one_process_may_make_the_file_together(tmp_path: Path, attempt: int) -> None:
    url = url_of(tmp_path / f"{attempt}.db")
    queues = await asyncio.gather(*(SqliteQueue.open(url) for _ in range(8)))
    await asyncio.gather(*(queue.put([change("c-1")]) for queue in queues))

    assert [(await queue.status()).pending for queue in queues] == [8] * 8
    await asyncio.gather(*(queue.close() for queue in queues))


async def test_opening_gives_up_on_a_file_that_another_process_keeps_locked(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN EXCLUSIVE")

    with pytest.raises(QueueUnavailable, match=r"another process holds the write lock|did not answer"):
        await SqliteQueue.open(url_of(path), timeout_seconds=0.2)
    connection.execute("ROLLBACK")
    connection.close()


def test_the_printed_migration_makes_a_queue(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    connection = apsw.Connection(str(path))
    connection.execute(migration_sql(url_of(path)))
    connection.close()

    async def use() -> None:
        async with open_queue(url_of(path)) as queue:
            await queue.put([change("c-1")])
            assert len(await claim(queue)) == 1

    asyncio.run(use())


@pytest.mark.parametrize("url", ["memory:", "mysql://host", "http://["])
def test_a_store_without_a_schema_has_no_migration(url: str) -> None:
    with pytest.raises(QueueMisnamed):
        migration_sql(url)


async def test_the_memory_queue_is_opened_by_its_url() -> None:
    async with open_queue("memory:") as queue:
        await queue.put([change("c-1")])
        assert repr(queue) == "<MemoryQueue [1 completions, 0 dead letters]>"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
async def test_only_the_owner_can_read_created_files(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with open_queue(f"sqlite:///{tmp_path}/queue.db") as queue:
            await queue.put([change("c-1")])
            modes = {name: mode_of(tmp_path / name) for name in ("queue.db", "queue.db-wal", "queue.db-shm")}
    finally:
        os.umask(before)

    assert modes == dict.fromkeys(modes, 0o600)


async def test_only_the_owner_can_read_what_is_created_where_a_symbolic_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "queue.db")
    async with open_queue(url_of(tmp_path / "link.db")) as queue:
        await queue.put([change("c-1")])
        modes = {name: mode_of(tmp_path / name) for name in ("queue.db", "queue.db-wal", "queue.db-shm")}

    assert modes == dict.fromkeys(modes, 0o600)


async def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.touch()
    path.chmod(0o660)
    async with open_queue(f"sqlite:///{path}") as queue:
        await queue.put([change("c-1")])
        assert [mode_of(path), mode_of(tmp_path / "queue.db-wal")] == [0o660, 0o660]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
