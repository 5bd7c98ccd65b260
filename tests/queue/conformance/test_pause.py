"""A pause lasts until it is ended, with any text, on every backend."""

import pytest

from tests.queue.conformance.backends import Advance, Backend
from tests.queue.helpers import about
from worker.queue import MAX_PAUSE_CHARACTERS, Store, pause, read_pause, resume
from worker.queue.notes import PAUSE


async def test_a_pause_is_there_for_every_worker_until_it_is_resumed(backend: Backend) -> None:
    assert await read_pause(backend.queue) is None
    assert await pause(backend.queue, "ana@host", "deploy") is None
    await backend.advance(90)
    async with backend.another() as another:
        seen = await read_pause(another)
        assert seen is not None
        assert seen.words == ("ana@host", "deploy")
        assert seen.age_seconds == about(90)
        ended = await resume(another)
        assert ended is not None
        assert ended.words == ("ana@host", "deploy")
    assert await read_pause(backend.queue) is None
    assert await resume(backend.queue) is None


async def test_who_pauses_a_paused_queue_gives_it_new_words_and_not_a_new_age(queue: Store, advance: Advance) -> None:
    await pause(queue, "ana@host", "deploy")
    await advance(3_600)
    before = await pause(queue, "ben@host", None)
    assert before is not None
    assert before.words == ("ana@host", "deploy")
    await advance(60)
    seen = await read_pause(queue)
    assert seen is not None
    assert seen.words == ("ben@host", None)
    assert seen.age_seconds == about(3_660)


async def test_a_pause_comes_back_with_a_store_that_is_put_back(backend: Backend) -> None:
    await pause(backend.queue, "ana@host", "deploy")
    put_back = await backend.save()
    await resume(backend.queue)
    await put_back()
    seen = await read_pause(backend.queue)
    assert seen is not None
    assert seen.words == ("ana@host", "deploy")


@pytest.mark.parametrize(
    "nonsense",
    ["", "paused", "null", "7", "[]", "{}", '{"by":7}', '{"by":"ana","reason":[]}', '{"from":"a"}', "[" * 5000],
)
async def test_an_unreadable_note_is_a_pause_by_an_unknown_user(queue: Store, nonsense: str) -> None:
    await queue.write_note(PAUSE, nonsense)
    seen = await read_pause(queue)
    assert seen is not None
    assert seen.words == ("somebody unknown", None)
    assert await resume(queue) == seen or seen.age_seconds > 0
    assert await read_pause(queue) is None


async def test_words_that_are_too_long_are_refused_and_cut_where_others_wrote_them(queue: Store) -> None:
    with pytest.raises(ValueError, match="500 characters"):
        await pause(queue, "ana@host", "x" * (MAX_PAUSE_CHARACTERS + 1))
    assert await read_pause(queue) is None
    await queue.write_note(PAUSE, f'{{"by":"{"y" * 9_000}","reason":"{"z" * 9_000}"}}')
    seen = await read_pause(queue)
    assert seen is not None
    assert seen.words == ("y" * MAX_PAUSE_CHARACTERS, "z" * MAX_PAUSE_CHARACTERS)


async def test_one_note_is_read_by_its_name(queue: Store, advance: Advance) -> None:
    await queue.write_note("one", "1")
    await queue.write_note("half \ud800", "odd")
    await advance(5)
    found, odd = await queue.read_note("one"), await queue.read_note("half \ud800")
    assert found is not None
    assert odd is not None
    assert (found.text, odd.text) == ("1", "odd")
    assert found.age_seconds == about(5)
    assert await queue.read_note("two") is None
