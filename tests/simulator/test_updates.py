"""The effect of updates on metadata, and when a completion is visible."""

from tests.simulator.http import Clock, Http
from worker.simulator import Delay, Options, Simulator
from worker.simulator.store import PAST_SECONDS, Store


async def test_replace_sets_exactly_the_map_that_was_sent(http: Http) -> None:
    async with Simulator(Options(semantics="replace")) as simulator:
        simulator.seed("chatcmpl-1", {"a": "1", "b": "2"})
        reply = await http.update(simulator, metadata={"b": "3", "c": "4"})
        assert reply.json()["metadata"] == simulator.metadata("chatcmpl-1") == {"b": "3", "c": "4"}
        assert simulator.counters.updates_applied == 1


async def test_merge_keeps_the_pairs_that_were_not_sent(http: Http) -> None:
    async with Simulator(Options(semantics="merge")) as simulator:
        simulator.seed("chatcmpl-1", {"a": "1", "b": "2"})
        reply = await http.update(simulator, metadata={"b": "3", "c": "4"})
        assert reply.json()["metadata"] == simulator.metadata("chatcmpl-1") == {"a": "1", "b": "3", "c": "4"}


async def test_a_merge_that_comes_to_too_many_pairs_is_rejected(http: Http) -> None:
    async with Simulator(Options(semantics="merge")) as simulator:
        before = {f"k{number}": "v" for number in range(10)}
        simulator.seed("chatcmpl-1", before)
        reply = await http.update(simulator, metadata={f"m{number}": "v" for number in range(7)})
        assert (reply.status, reply.error["code"]) == (400, "object_above_max_properties")
        assert simulator.metadata("chatcmpl-1") == before


async def test_null_empties_the_map_under_replace_and_changes_nothing_under_merge(http: Http) -> None:
    async with Simulator() as simulator:
        simulator.seed("chatcmpl-1", {"a": "1"})
        simulator.options = Options(semantics="merge")
        assert (await http.update(simulator, metadata=None)).json()["metadata"] == {"a": "1"}
        simulator.options = Options(semantics="replace")
        assert (await http.update(simulator, metadata=None)).json()["metadata"] == {}


async def test_metadata_can_be_left_out_of_the_answers(http: Http) -> None:
    async with Simulator(Options(show_metadata=False)) as simulator:
        simulator.seed("chatcmpl-1", {"a": "1"})
        for reply in (await http.update(simulator, metadata={"b": "2"}), await http.get(simulator)):
            assert reply.status == 200
            assert "metadata" not in reply.json()
        assert "metadata" not in (await http.get(simulator, "")).json()["data"][0]
        assert simulator.metadata("chatcmpl-1") == {"b": "2"}


async def test_completions_seeded_together_are_updated_apart(http: Http) -> None:
    async with Simulator() as simulator:
        simulator.seed_completions(["chatcmpl-1", "chatcmpl-2"], {"a": "1"})
        await http.update(simulator, metadata={"a": "2"})
        assert simulator.all_metadata() == {"chatcmpl-1": {"a": "2"}, "chatcmpl-2": {"a": "1"}}


async def test_what_is_handed_out_is_a_copy() -> None:
    simulator = Simulator()
    given = {"a": "1"}
    simulator.seed("chatcmpl-1", given)
    given.clear()
    simulator.metadata("chatcmpl-1").clear()
    simulator.all_metadata()["chatcmpl-1"].clear()
    assert simulator.metadata("chatcmpl-1") == {"a": "1"}


async def test_a_hundred_thousand_completions_are_served_like_one(http: Http) -> None:
    async with Simulator(Options(completions=100_000)) as simulator:
        assert len(simulator.all_metadata()) == 100_000
        assert (await http.update(simulator, "chatcmpl-054321", {"a": "1"})).status == 200
        page = (await http.get(simulator, "?order=asc&after=chatcmpl-099998&limit=100")).json()
        assert [item["id"] for item in page["data"]] == ["chatcmpl-099999", "chatcmpl-100000"]
        assert "100000 completions" in repr(simulator)


async def test_seeding_an_id_again_starts_it_anew_at_the_end_of_the_list(http: Http) -> None:
    async with Simulator() as simulator:
        simulator.seed("chatcmpl-1", {"a": "1"})
        simulator.seed("chatcmpl-2")
        simulator.seed("chatcmpl-1", {"b": "2"})
        listed = (await http.get(simulator, "?order=asc")).json()["data"]
        assert [(item["id"], item["metadata"]) for item in listed] == [("chatcmpl-2", {}), ("chatcmpl-1", {"b": "2"})]


async def test_paging_goes_on_when_most_completions_are_deleted_in_between(http: Http) -> None:
    async with Simulator() as simulator:
        simulator.seed_completions(f"chatcmpl-{number}" for number in range(10))
        for number in range(8):
            url = f"{simulator.base_url}/chat/completions/chatcmpl-{number}"
            assert (await http.call("DELETE", url)).json()["deleted"] is True
        page = (await http.get(simulator, "?order=asc&after=chatcmpl-8")).json()
        assert [item["id"] for item in page["data"]] == ["chatcmpl-9"]
        assert page["has_more"] is False


async def test_the_history_holds_the_latest_maps_that_took_effect(http: Http) -> None:
    async with Simulator(Options(history=2)) as simulator:
        simulator.seed("chatcmpl-1", {"n": "0"})
        for number in ("1", "2", "3"):
            await http.update(simulator, metadata={"n": number})
        await http.update(simulator, metadata={"n": 4})
        assert simulator.history("chatcmpl-1") == [{"n": "2"}, {"n": "3"}]
        simulator.options = Options(history=3)
        await http.update(simulator, metadata={"n": "5"})
        assert simulator.history("chatcmpl-1") == [{"n": "2"}, {"n": "3"}, {"n": "5"}]
        assert simulator.history("chatcmpl-unknown") == []


async def test_a_fresh_completion_is_not_found_until_the_lag_is_over(http: Http) -> None:
    clock = Clock()
    async with Simulator(Options(lag_seconds=4), clock=clock) as simulator:
        created = await http.call(
            "POST",
            f"{simulator.base_url}/chat/completions",
            {"model": "m", "messages": [{"role": "user", "content": "Write."}], "store": True},
        )
        completion_id = created.json()["id"]
        url = f"{simulator.base_url}/chat/completions/{completion_id}"
        clock.now += 3.9
        for reply in (
            await http.update(simulator, completion_id, {"a": "1"}),
            await http.call("GET", url),
            await http.call("GET", f"{url}/messages"),
            await http.call("DELETE", url),
        ):
            assert (reply.status, reply.error["code"]) == (404, "not_found")
        assert (await http.get(simulator, "")).json()["data"] == []
        assert simulator.metadata(completion_id) == {}
        clock.now += 0.1
        assert (await http.update(simulator, completion_id, {"a": "1"})).status == 200
        assert len((await http.get(simulator, "")).json()["data"]) == 1


async def test_a_seeded_completion_is_visible_at_once_unless_a_lag_is_given(http: Http) -> None:
    clock = Clock()
    async with Simulator(Options(lag_seconds=60), clock=clock) as simulator:
        simulator.seed("chatcmpl-1")
        simulator.seed("chatcmpl-2", lag_seconds=1)
        assert (await http.get(simulator, "/chatcmpl-1")).status == 200
        assert (await http.get(simulator, "/chatcmpl-2")).status == 404
        clock.now += 1
        assert (await http.get(simulator, "/chatcmpl-2")).status == 200


async def test_stale_reads_show_the_metadata_of_so_long_ago(http: Http) -> None:
    clock = Clock()
    async with Simulator(Options(stale_reads_seconds=5), clock=clock) as simulator:
        simulator.seed("chatcmpl-1", {"n": "0"})
        for number in ("1", "2"):
            clock.now += 3
            # The update's own answer is not stale.
            assert (await http.update(simulator, metadata={"n": number})).json()["metadata"] == {"n": number}
        for passed, shown in ((1, "0"), (1, "1"), (2.9, "1"), (0.2, "2")):
            clock.now += passed
            assert (await http.get(simulator)).json()["metadata"] == {"n": shown}
            [item] = (await http.get(simulator, "")).json()["data"]
            assert item["metadata"] == {"n": shown}
            for number in ("0", "1", "2"):
                found = (await http.get(simulator, f"?metadata[n]={number}")).json()["data"]
                assert bool(found) == (number == shown)


async def test_staleness_is_drawn_for_each_read(http: Http) -> None:
    clock = Clock()
    options = Options(seed=1, stale_reads_seconds=Delay(0, up_to_seconds=10))
    async with Simulator(options, clock=clock) as simulator:
        simulator.seed("chatcmpl-1", {"n": "0"})
        await http.update(simulator, metadata={"n": "1"})
        clock.now += 5
        shown = [(await http.get(simulator)).json()["metadata"]["n"] for _ in range(50)]
        assert 10 < shown.count("0") < 40
        assert set(shown) == {"0", "1"}
        clock.now += 5.1
        assert {(await http.get(simulator)).json()["metadata"]["n"] for _ in range(50)} == {"1"}


def test_what_no_read_can_show_is_forgotten() -> None:
    store = Store()
    completion = store.add("chatcmpl-1", {"n": "0"}, model="m", now=0)
    for number in range(1, 5_000):
        store.update(completion, {"n": str(number)}, "replace", replaced_at=float(number))
    assert completion.metadata_at(4_999 - PAST_SECONDS)["n"] == str(4_999 - int(PAST_SECONDS))
    assert completion.past is not None
    assert len(completion.past) == PAST_SECONDS + 1


async def test_values_can_be_trimmed_in_silence(http: Http) -> None:
    async with Simulator(Options(trim_values=4)) as simulator:
        simulator.seed("chatcmpl-1")
        sent = {"long": "abcdef", "space": " \tab\n", "both": "  abcdef", "kept": "a bc"}
        kept = {"long": "abcd", "space": "ab", "both": "abcd", "kept": "a bc"}
        reply = await http.update(simulator, metadata=sent)
        assert (reply.status, reply.json()["metadata"]) == (200, kept)
        assert (await http.get(simulator)).json()["metadata"] == simulator.metadata("chatcmpl-1") == kept
        created = await http.call(
            "POST",
            f"{simulator.base_url}/chat/completions",
            {"model": "m", "messages": [{"role": "user", "content": "Write."}], "store": True, "metadata": sent},
        )
        assert simulator.metadata(created.json()["id"]) == kept


async def test_latency_is_drawn_for_updates_and_for_other_calls(http: Http) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    options = Options(seed=1, latency=0.2, update_latency=Delay(3.0, up_to_seconds=6.0))
    async with Simulator(options, sleep=sleep) as simulator:
        simulator.seed("chatcmpl-1")
        await http.get(simulator)
        await http.get(simulator, "")
        assert slept == [0.2, 0.2]
        slept.clear()
        for _ in range(20):
            await http.update(simulator, metadata={})
        assert len(set(slept)) == 20
        assert all(3 <= seconds <= 6 for seconds in slept)
        slept.clear()
        simulator.options = Options(latency=0.3)
        await http.update(simulator, metadata={})
        assert slept == [0.3]


async def test_an_update_takes_effect_before_or_after_its_latency_by_lot(http: Http) -> None:
    seen = set()

    async def sleep(_: float) -> None:
        seen.add(simulator.metadata("chatcmpl-1") == wanted)

    async with Simulator(Options(seed=1, update_latency=1), sleep=sleep) as simulator:
        simulator.seed("chatcmpl-1")
        for number in range(20):
            wanted = {"n": str(number)}
            assert (await http.update(simulator, metadata=wanted)).json()["metadata"] == wanted
    assert seen == {True, False}


async def test_an_equal_seed_draws_equal_lots(http: Http) -> None:
    async def run(seed: int) -> list[tuple[int, str]]:
        async with Simulator(Options(seed=seed)) as simulator:
            simulator.seed("chatcmpl-1")
            replies = [await http.get(simulator) for _ in range(5)]
            return [(reply.status, reply.headers["x-request-id"]) for reply in replies]

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)
