"""What every backend promises about notes."""

from tests.queue.backends import Advance
from tests.queue.helpers import about
from worker.queue import Queue


async def test_a_note_is_kept_until_it_is_replaced_or_removed(queue: Queue, advance: Advance) -> None:
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
