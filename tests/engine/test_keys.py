"""The key is read again before requests, but not before each one, and always before a probe."""

import asyncio

from tests.engine.parts import OK, Calling, claim_of, flow, halt, now, others_get_through, work_on
from tests.virtual import in_virtual_time
from worker.api import Kind
from worker.engine.keys import KeyReader


class Source:
    """The key's source: it says that the key is new as often as a test wants."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, bool]] = []
        self.is_new = False
        self.takes_seconds = 0.0

    async def read(self, always: bool) -> bool:  # noqa: FBT001 -- as the engine calls it
        self.asked.append((now(), always))
        await asyncio.sleep(self.takes_seconds)
        is_new, self.is_new = self.is_new, False
        return is_new


@in_virtual_time
async def test_a_key_that_cannot_change_is_never_read() -> None:
    keys = KeyReader(None, flow(), now)
    await asyncio.sleep(10.0)
    assert not keys.is_due()
    await keys.refresh(probe=True)


@in_virtual_time
async def test_the_key_is_due_a_tenth_of_a_second_after_it_was_read() -> None:
    source = Source()
    keys = KeyReader(source.read, flow(), now)
    assert not keys.is_due()
    await asyncio.sleep(0.1)
    assert keys.is_due()
    await keys.refresh(probe=False)
    assert not keys.is_due()
    await keys.refresh(probe=True)
    assert source.asked == [(0.1, False), (0.1, True)]


@in_virtual_time
async def test_requests_in_quick_succession_read_the_key_once() -> None:
    source = Source()
    calling = Calling(*[OK] * 60, read_key=source.read)
    calling.client.takes_seconds = 0.02
    for _ in range(50):
        await calling.call(work_on(claim_of("{}")))
    assert 8 <= len(source.asked) <= 10
    assert not any(always for _, always in source.asked)


@in_virtual_time
async def test_while_the_key_is_read_no_request_starts_and_it_is_read_once_for_all() -> None:
    source = Source()
    source.takes_seconds = 3.0
    calling = Calling(read_key=source.read)
    await asyncio.sleep(1.0)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(calling.call(work_on(claim_of("{}"))))
            await asyncio.sleep(0.5)
    assert source.asked == [(1.0, False)]
    assert len(calling.client.asked_at) == 5
    assert min(calling.client.asked_at) == 4.0


@in_virtual_time
async def test_the_key_is_due_while_it_is_read_for_a_probe() -> None:
    source, loop = Source(), asyncio.get_running_loop()
    source.takes_seconds = 3.0
    keys = KeyReader(source.read, flow(), now)
    reading = loop.create_task(keys.refresh(probe=True))
    await asyncio.sleep(0.01)
    assert keys.is_due()
    await reading
    assert not keys.is_due()


@in_virtual_time
async def test_before_a_probe_the_key_is_always_read() -> None:
    source = Source()
    calling, work = Calling(OK, read_key=source.read), work_on(claim_of("{}"))
    halt(calling.flow)
    assert calling.flow.take_probe("chatcmpl-1")
    work.is_probe = True
    assert (await calling.call(work)).verdict.kind is Kind.OK
    assert source.asked == [(0.0, True)]


@in_virtual_time
async def test_only_a_new_key_resets_the_failures_in_flow_control() -> None:
    source, control = Source(), flow()
    keys = KeyReader(source.read, control, now)
    others_get_through(control)
    halt(control, "unauthorized")
    assert control.gate.has_failed("failed-0")
    await asyncio.sleep(1.0)
    await keys.refresh(probe=False)
    assert control.gate.has_failed("failed-0")
    assert control.gate.others_got_through("update", "c", -1.0, elsewhere=False)
    source.is_new = True
    await asyncio.sleep(1.0)
    await keys.refresh(probe=False)
    assert not control.gate.has_failed("failed-0")
    assert not control.gate.others_got_through("update", "c", -1.0, elsewhere=False)
