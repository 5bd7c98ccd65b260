"""A store that is opened as soon as possible offers every method of a store."""

import inspect
import sqlite3
from pathlib import Path

import pytest

from worker.queue import QueueMisnamed, QueueUnusable, Store
from worker.queue.opening import open_queue
from worker.queue.patient import open_patiently


async def _read_url() -> str:
    return "memory:"


async def test_what_a_store_says_without_being_asked_is_what_the_opened_one_says() -> None:
    properties = [name for name, member in inspect.getmembers(Store) if isinstance(member, property)]
    async with (
        open_queue("memory:") as store,
        open_patiently(_read_url, timeout_seconds=10.0, on_open=lambda _: None) as patient,
    ):
        for name in properties:  # not opened yet
            assert type(getattr(patient, name)) is type(getattr(store, name)), name
        await patient.next_due_seconds()
        assert {name: getattr(patient, name) for name in properties} == {
            name: getattr(store, name) for name in properties
        }
    assert "poll_seconds" in properties


def test_every_other_part_of_a_store_can_be_awaited() -> None:
    apart = {"dead_letters", "pending_changes"}  # iterators, which are written out
    methods = {name for name, member in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in methods if not inspect.iscoroutinefunction(getattr(Store, name))} == apart


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebody (else_ text)")
    connection.commit()
    connection.close()


async def test_a_store_that_worked_once_is_waited_for_whatever_replaces_it(tmp_path: Path) -> None:
    path, aside, other = tmp_path / "queue.db", tmp_path / "aside.db", tmp_path / "other.db"
    _foreign(other)

    async def read_url() -> str:
        return f"sqlite:///{path}"

    async with open_patiently(read_url, timeout_seconds=10.0, on_open=lambda _: None) as queue:
        await queue.next_due_seconds()
        path.rename(aside)
        other.replace(path)
        with pytest.raises(QueueUnusable, match="another program"):
            await queue.next_due_seconds()
        aside.replace(path)
        assert await queue.next_due_seconds() is None


async def test_what_never_served_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    _foreign(path)

    async def read_url() -> str:
        return f"sqlite:///{path}"

    async with open_patiently(read_url, timeout_seconds=10.0, on_open=lambda _: None) as queue:
        with pytest.raises(QueueMisnamed, match="another program"):
            await queue.next_due_seconds()
