"""Read requests end as a drain does if nothing gets through, and continue when that is over."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.sync.house import House, asks
from worker.api import Answer, Client, Halt, Kind, Verdict
from worker.flow import Ended, GateState
from worker.simulator import Fault, Options, RateLimit, Simulator
from worker.sync.asking import Asking, Send, Terms, Unfinished, in_parallel
from worker.sync.reading import InOrder, get, read_each

IDS = [f"chatcmpl-{number:03d}" for number in range(60)]


_OK = Answer(Verdict(Kind.OK, 200), metadata={})
_DENIED = Answer(Verdict(Kind.HALTED, 401, error="HTTP 401", halt=Halt.UNAUTHORIZED, envelope=True))


def _answers(*answers: Answer) -> Send:
    """The service's answers to one request, in turn."""
    left = list(answers)

    async def send(_timeout_seconds: float, _fresh: bool) -> Answer:  # noqa: FBT001 -- as `Send` has it
        return left.pop(0)

    return send


def _fails(_answer: Answer) -> Ended:
    raise KeyError("ours")


async def _read(asking: Asking, client: Any, ids: list[str]) -> list[Answer]:
    found: list[Answer] = []

    async def settle() -> None:
        pass

    await asking.run(
        read_each(asking, iter(ids), lambda each: get(asking, client, each), found.append, settle, size_of=lambda _: 0)
    )
    return found


@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize(
    ("switches", "ending", "reason"),
    [
        ({"bad_key": True}, "halted", "unauthorized"),
        ({"quota_exhausted": True}, "halted", "quota"),
        ({"outage": "overloaded"}, "outage", "outage"),
        ({"outage": "dropped"}, "outage", "outage"),
    ],
)
async def test_a_failure_of_all_requests_halts_and_ends_it(
    house: House, count: int, switches: dict[str, Any], ending: str, reason: str
) -> None:
    house.simulator.seed_completions(IDS)
    for name, value in switches.items():
        setattr(house.simulator.switches, name, value)
    with capture_logs() as logs, pytest.raises(Unfinished) as caught:
        await _read(asks(halt_timeout_seconds=0.2), house.client, IDS[:count])
    assert (caught.value.ending, caught.value.cause and caught.value.cause.reason) == (ending, reason)
    assert [event["reason"] for event in logs if event["event"] == "worker.halted"] == [reason]


@pytest.mark.parametrize("count", [1, 3, 60])
async def test_a_halt_that_is_over_is_found_out_by_probes_and_nothing_is_left_out(house: House, count: int) -> None:
    house.simulator.seed_completions(IDS)
    house.simulator.switches.outage = "overloaded"
    with capture_logs() as logs:
        reading = asyncio.create_task(_read(asks(), house.client, IDS[:count]))
        while not any(event["event"] == "worker.halted" for event in logs):
            assert not reading.done()
            await asyncio.sleep(0.01)
        house.simulator.switches.outage = None
        found = await reading
    assert len(found) == count
    assert all(answer.verdict.kind is Kind.OK for answer in found)
    assert "worker.resumed" in [event["event"] for event in logs]


async def test_a_limit_is_kept_and_nothing_starts_while_the_service_asks_to_wait() -> None:
    limit = RateLimit(requests_per_minute=1_200, burst=5, hint="ms")
    async with Simulator(Options(limit=limit, seed=1)) as simulator:
        simulator.seed_completions(IDS)
        async with Client(base_url=simulator.base_url, api_key="sk-test") as client:
            found = await _read(asks(), client, IDS)
        assert [answer.verdict.kind for answer in found] == [Kind.OK] * len(IDS)
        assert simulator.counters.started_while_closed == 0


async def test_faults_are_tried_again_until_each_has_its_word() -> None:
    faults = (
        Fault("internal_error", 0.05),
        Fault("bad_gateway", 0.05),
        Fault("dropped", 0.05),
        Fault("cut_off", 0.05),
        Fault("empty", 0.05),
        Fault("malformed", 0.05),
        Fault("foreign", 0.05),
    )
    async with Simulator(Options(faults=faults, seed=3)) as simulator:
        for each in IDS:
            simulator.seed(each, {"id": each})
        async with Client(base_url=simulator.base_url, api_key="sk-test") as client:
            found = await _read(asks(), client, IDS)
        assert [answer.metadata for answer in found] == [{"id": each} for each in IDS]


async def test_one_that_keeps_failing_while_others_get_through_is_said_in_the_end() -> None:
    class OneFails:
        async def get(self, completion_id: str, **_: object) -> Answer:
            if completion_id == IDS[0]:
                return Answer(Verdict(Kind.RETRY, 500, error="HTTP 500", envelope=True))
            return Answer(Verdict(Kind.OK, 200), metadata={})

    with pytest.raises(Unfinished) as caught:
        await _read(asks(halt_timeout_seconds=0.3), OneFails(), IDS)
    assert caught.value.ending in {"stuck", "outage"}  # as the last of a drain ends
    assert caught.value.left == {IDS[0]: "HTTP 500"}


async def test_many_missing_completions_are_an_answer_and_delay_no_other(house: House) -> None:
    house.simulator.seed_completions(IDS[-1:])
    with capture_logs() as logs:
        found = await _read(asks(), house.client, IDS)
    assert [answer.verdict.kind for answer in found] == [Kind.NOT_FOUND] * 59 + [Kind.OK]
    assert logs == []  # as a worker is slowed after twenty in a row
    assert house.requests("get") == 60


async def test_a_wrong_url_is_no_absence(house: House) -> None:
    async with Client(base_url=f"{house.simulator.base_url}/nowhere", api_key="sk-test") as client:
        with pytest.raises(Unfinished) as caught:
            await _read(asks(halt_timeout_seconds=0.2), client, IDS)
    assert caught.value.cause is not None
    assert caught.value.cause.reason == "wrong_url"


async def test_hidden_metadata_halts(house: House) -> None:
    house.simulator.options = Options(show_metadata=False)
    house.simulator.seed_completions(IDS)
    with pytest.raises(Unfinished) as caught:
        await _read(Asking(Terms(max_concurrency=1, halt_timeout_seconds=0.2)), house.client, IDS)
    assert caught.value.cause is not None
    assert caught.value.cause.reason == "metadata_hidden"


async def test_a_failure_of_our_own_ends_all_and_is_raised() -> None:
    async def fail() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await asks().run(in_parallel(3, fail))


async def test_an_exception_in_the_handling_of_an_answer_frees_the_slot() -> None:
    asking = Asking(Terms(max_concurrency=1))
    with pytest.raises(KeyError):
        await asking.ask("c-1", _answers(_OK), _fails)
    assert asking.state().in_flight == 0
    assert (await asking.ask("c-2", _answers(_OK))).verdict.kind is Kind.OK


async def test_an_exception_in_the_handling_of_a_probes_answer_leaves_another_probe_due() -> None:
    asking = Asking(Terms())
    asking.nothing_more = True  # so that one failure halts
    with pytest.raises(KeyError):
        await asking.ask("c-1", _answers(_DENIED, _OK), _fails)
    assert asking.state().gate is not GateState.OPEN
    assert (await asking.ask("c-2", _answers(_OK))).verdict.kind is Kind.OK


def test_results_come_in_order_unless_one_takes_very_long() -> None:
    handed: list[int] = []
    order = InOrder[int](handed.append, most=3)
    for number in (1, 0, 2, 4, 5, 6):
        order.put(number, number)
    assert handed == [0, 1, 2]
    order.put(7, 7)
    assert handed == [0, 1, 2, 4, 5, 6, 7]
    order.put(3, 3)
    order.put(8, 8)
    assert handed == [0, 1, 2, 4, 5, 6, 7, 3, 8]
