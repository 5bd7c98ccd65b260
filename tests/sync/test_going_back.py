"""There and back: a pulled file restores everything, whatever was applied in between."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from tests.sync.house import House
from worker.api import Client
from worker.changes import MetadataChange
from worker.changes.files import ChangeFile
from worker.engine import Options as WorkerOptions
from worker.engine import Worker
from worker.queue.memory import MemoryQueue
from worker.simulator import Options, Simulator

KEYS = st.sampled_from(["grade", "topic", "draft", "né", "key with spaces", 'quo"te,', "k" * 64])
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.just("v" * 512)
MAPS = st.dictionaries(KEYS, VALUES, max_size=6)
IDS = ("chatcmpl-1", "chatcmpl-2", "chatcmpl-3")
CHANGES = st.lists(
    st.one_of(
        st.builds(MetadataChange, st.sampled_from(IDS), st.dictionaries(KEYS, st.none() | VALUES, max_size=4)),
        st.builds(MetadataChange, st.sampled_from(IDS), MAPS, st.just("replace")),
    ),
    max_size=6,
)
STORES = st.fixed_dictionaries(dict.fromkeys(IDS, MAPS))


async def _apply(client: Client, changes: list[MetadataChange], semantics: Any) -> None:
    async with MemoryQueue() as queue:
        await queue.put(changes)
        options = WorkerOptions(drain=True, semantics=semantics)
        summary = await Worker(queue, client, options).run()
        assert (summary.empty, summary.totals.dead) == (True, 0)


def _read(path: Path) -> list[MetadataChange]:
    with ChangeFile.open(str(path)) as file:
        return [item for _, item in file if isinstance(item, MetadataChange)]


@given(STORES, CHANGES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_service_that_replaces_has_everything_again_as_it_was(
    tmp_path: Path, before: dict[str, dict[str, str]], changes: list[MetadataChange]
) -> None:
    path = tmp_path / "before.jsonl"
    async with (
        Simulator(Options()) as simulator,
        Client(base_url=simulator.base_url, api_key="sk-test") as client,
    ):
        for completion_id, metadata in before.items():
            simulator.seed(completion_id, metadata)
        house = House(simulator, client)
        lines = await house.pull(path, [each.completion_id for each in changes], overwrite=True)
        assert {line["completion_id"]: line["metadata"] for line in lines} == {
            each.completion_id: before[each.completion_id] for each in changes
        }
        await _apply(client, changes, "replace")
        found, counts = await house.diff(changes)
        assert (counts.in_sync, counts.total) == (len(lines), len(lines)), found
        await _apply(client, _read(path), "replace")
        assert simulator.all_metadata() == before
        _, counts = await house.diff(_read(path))
        assert counts.in_sync == counts.total


@given(STORES, CHANGES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_service_that_merges_has_every_pair_again_and_keeps_only_keys_that_came_in_between(
    tmp_path: Path, before: dict[str, dict[str, str]], changes: list[MetadataChange]
) -> None:
    path = tmp_path / "before.jsonl"
    # What such a service cannot do, it does not do on the way back either: take a key away.
    changes = [
        MetadataChange(each.completion_id, {key: value for key, value in each.metadata.items() if value}, each.mode)
        for each in changes
    ]
    async with (
        Simulator(Options(semantics="merge")) as simulator,
        Client(base_url=simulator.base_url, api_key="sk-test") as client,
    ):
        for completion_id, metadata in before.items():
            simulator.seed(completion_id, metadata)
        house = House(simulator, client)
        await house.pull(path, [each.completion_id for each in changes], overwrite=True)
        await _apply(client, changes, "merge")
        _, counts = await house.diff(changes, semantics="merge")
        assert counts.in_sync == counts.total
        await _apply(client, _read(path), "merge")
        after = simulator.all_metadata()
        for completion_id, metadata in before.items():
            assert after[completion_id].items() >= metadata.items()
            came = {key for each in changes if each.completion_id == completion_id for key in each.metadata}
            assert after[completion_id].keys() - metadata.keys() <= came


@pytest.mark.parametrize("count", [1, 3, 150])
async def test_the_official_client_agrees_item_by_item(house: House, tmp_path: Path, count: int) -> None:
    ids = [f"chatcmpl-{number}" for number in range(count)]
    for number, each in enumerate(ids):
        house.simulator.seed(each, {"n": str(number), "né": "„ü“\n\t\x7f"})
    lines = await house.pull(tmp_path / "all.jsonl", ids)
    async with AsyncOpenAI(api_key="sk-test", base_url=house.simulator.base_url) as official:
        theirs = [(each.id, each.metadata) async for each in official.chat.completions.list(order="asc")]
        one = await official.chat.completions.retrieve(ids[-1])
    assert [(line["completion_id"], line["metadata"]) for line in lines] == theirs
    assert one.metadata == lines[-1]["metadata"]


async def test_a_completion_is_read_once_in_the_order_of_the_file(house: House, tmp_path: Path) -> None:
    ids = [f"chatcmpl-{number:03d}" for number in reversed(range(300))]
    house.simulator.seed_completions(sorted(ids))
    lines = await house.pull(tmp_path / "some.jsonl", [*ids, *ids[:50], "chatcmpl-none"])
    assert [line["completion_id"] for line in lines] == ids
    assert house.requests("get") == 301
    assert json.loads((tmp_path / "some.jsonl").read_bytes().splitlines()[0])["mode"] == "replace"
