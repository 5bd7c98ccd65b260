"""Notes, and text that is not valid Unicode, on every backend."""

import pytest

from tests.queue.conformance.backends import START, Advance
from tests.queue.helpers import about, bury, change, letters
from worker.queue import DeadSelection, Store


async def test_a_note_is_kept_until_it_is_replaced_or_removed(queue: Store, advance: Advance) -> None:
    assert await queue.read_notes() == {}
    await queue.write_note("rate", "8.3")
    await queue.write_note("worker host:1", '{"gate": "offen, ö"}')
    await advance(5)
    await queue.write_note("rate", "9.1")
    notes = await queue.read_notes()
    assert {name: note.text for name, note in notes.items()} == {"rate": "9.1", "worker host:1": '{"gate": "offen, ö"}'}
    assert notes["worker host:1"].age_seconds == about(5)
    assert notes["rate"].age_seconds == about(0)
    await queue.write_note("rate", None)
    await queue.write_note("never written", None)
    assert set(await queue.read_notes()) == {"worker host:1"}


async def test_a_note_from_a_time_that_has_yet_to_come_is_not_a_new_one(queue: Store, advance: Advance) -> None:
    """Its worker may have died while the clock was ahead: one that lives writes it anew."""
    await queue.write_note("worker host:1", "{}")
    await advance(-3_600)
    [note] = (await queue.read_notes()).values()
    assert note.age_seconds == about(3_600)
    alone = await queue.read_note("worker host:1")
    assert alone is not None
    assert alone.age_seconds == about(3_600)


async def test_the_time_is_that_of_the_stores_own_clock(queue: Store, advance: Advance) -> None:
    before = await queue.unix_time()
    assert before == about(START)
    await advance(100)
    assert await queue.unix_time() - before == about(100)


async def test_odd_text_is_kept_in_a_form_that_can_be_read_and_found_by_its_name(queue: Store) -> None:
    await queue.write_note("half \ud800, nul \0", "nul \0, half \udc80")

    notes = await queue.read_notes()
    assert {name: note.text for name, note in notes.items()} == {"half ?, nul \ufffd": "nul \ufffd, half ?"}
    await queue.write_note("half \ud800, nul \0", None)
    assert await queue.read_notes() == {}


@pytest.mark.parametrize("odd", ["\ud800", "a\0b"])
async def test_odd_text_selects_no_dead_letters(queue: Store, odd: str) -> None:
    await bury(queue, change("c-1"))

    for selection in (DeadSelection(completion_id=odd), DeadSelection(reason=odd)):
        assert await letters(queue, selection) == []
        assert await queue.purge_dead(selection) == 0
