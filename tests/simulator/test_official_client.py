"""The official client drives every operation: an answer that it parses has the right shape."""

import math
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, BadRequestError, NotFoundError, omit
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionDeleted, ChatCompletionStoreMessage

from worker.simulator import Options, Simulator

TEXT = "Crimson leaves drift down"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(Options(text=TEXT, seed=1)) as simulator:
        yield simulator


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="sk-test", base_url=simulator.base_url, max_retries=0) as client:
        yield client


async def create(client: AsyncOpenAI, *, model: str = "gpt-4o", **metadata: str) -> ChatCompletion:
    return await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Write."}], store=True, metadata=metadata
    )


def check(completion: ChatCompletion) -> None:
    """Everything required is there and has the documented type, all the way down."""
    checked = ChatCompletion.model_validate(completion.model_dump(), strict=True)
    assert checked.model_dump() == completion.model_dump()
    assert completion.choices


async def test_a_fresh_completion_has_the_fresh_shape(client: AsyncOpenAI) -> None:
    completion = await create(client, grade="A")
    check(completion)
    message = completion.choices[0].message
    assert message.content == TEXT
    assert message.annotations == []
    assert message.model_dump(exclude_unset=True)["refusal"] is None
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.metadata == {"grade": "A"}


async def test_a_completion_that_is_not_stored_is_answered_and_forgotten(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Write."}])
    check(completion)
    with pytest.raises(NotFoundError):
        await client.chat.completions.retrieve(completion.id)


async def test_a_stored_completion_has_the_stored_shape(client: AsyncOpenAI) -> None:
    fresh = await create(client, grade="A")
    stored = await client.chat.completions.retrieve(fresh.id)
    check(stored)
    assert stored.metadata == {"grade": "A"}
    extra = stored.model_extra
    assert extra is not None
    assert extra["request_id"] == fresh._request_id
    assert extra.keys() >= {
        "tool_choice", "seed", "top_p", "temperature", "presence_penalty", "frequency_penalty", "input_user", "tools",
        "response_format",
    }  # fmt: skip
    assert isinstance(extra["seed"], int)
    assert stored.choices[0].message.model_fields_set == {"role", "content", "tool_calls", "function_call"}
    assert stored.usage is not None
    assert stored.usage.model_fields_set == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_what_was_asked_for_is_shown_once_stored(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Write."}],
        store=True,
        seed=-(2**63),
        temperature=0.5,
        user="somebody",
    )
    stored = await client.chat.completions.retrieve(completion.id)
    extra = stored.model_extra
    assert extra is not None
    assert (extra["seed"], extra["temperature"], extra["input_user"]) == (-(2**63), 0.5, "somebody")


async def test_a_seeded_completion_has_the_stored_shape(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.seed_completions([f"chatcmpl-{number}" for number in range(50)], {"a": "1"})
    seeds = []
    async for completion in client.chat.completions.list(limit=50):
        check(completion)
        assert completion.metadata == {"a": "1"}
        assert completion.model_extra is not None
        seeds.append(completion.model_extra["seed"])
    assert len(set(seeds)) == 50
    assert min(seeds) < 0 < max(seeds)
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)


async def test_every_part_of_a_message_can_be_asked_for(client: AsyncOpenAI) -> None:
    asked = {
        "logprobs": {"logprobs": True, "top_logprobs": 2},
        "function": {"tools": [_tool("grade")], "tool_choice": "required"},
        "custom": {"tool_choice": {"type": "custom", "custom": {"name": "note"}}},
        "legacy": {"functions": [{"name": "old"}], "function_call": {"name": "old"}},
        "audio": {"modalities": ["text", "audio"], "audio": {"format": "wav", "voice": "alloy"}},
        "search": {"web_search_options": {}},
        "several": {"n": 3},
    }
    answered = {}
    for name, extra_body in asked.items():
        completion = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Write."}], store=True, extra_body=extra_body
        )
        check(completion)
        stored = await client.chat.completions.retrieve(completion.id)
        check(stored)
        assert [choice.finish_reason for choice in stored.choices] == [c.finish_reason for c in completion.choices]
        answered[name] = completion.choices
    logprobs = answered["logprobs"][0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert " ".join(token.token for token in logprobs.content) == TEXT
    assert [len(token.top_logprobs) for token in logprobs.content] == [2] * len(logprobs.content)
    assert [call.type for call in answered["function"][0].message.tool_calls or ()] == ["function"]
    assert [call.type for call in answered["custom"][0].message.tool_calls or ()] == ["custom"]
    assert answered["function"][0].finish_reason == "tool_calls"
    assert answered["legacy"][0].message.function_call is not None
    audio = answered["audio"][0].message.audio
    assert audio is not None
    assert audio.transcript == TEXT
    annotations = answered["search"][0].message.annotations
    assert annotations is not None
    assert annotations[0].url_citation.end_index == len(TEXT)
    assert [choice.index for choice in answered["several"]] == [0, 1, 2]


def _tool(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


async def test_an_update_answers_the_whole_stored_object(client: AsyncOpenAI) -> None:
    fresh = await create(client, grade="A")
    updated = await client.chat.completions.update(fresh.id, metadata={"grade": "B", "by": "me"})
    check(updated)
    assert updated.metadata == {"grade": "B", "by": "me"}
    assert updated == await client.chat.completions.retrieve(fresh.id)


async def test_a_deleted_completion_is_gone(client: AsyncOpenAI) -> None:
    fresh = await create(client)
    deleted = await client.chat.completions.delete(fresh.id)
    assert deleted == ChatCompletionDeleted(id=fresh.id, deleted=True, object="chat.completion.deleted")
    with pytest.raises(NotFoundError) as caught:
        await client.chat.completions.update(fresh.id, metadata={})
    assert (caught.value.code, caught.value.param) == ("not_found", "completion_id")
    assert [completion.id async for completion in client.chat.completions.list()] == []


async def test_the_list_is_descending_unless_told_otherwise(client: AsyncOpenAI) -> None:
    ids = [(await create(client)).id for _ in range(3)]
    assert [completion.id async for completion in client.chat.completions.list()] == ids[::-1]
    assert [completion.id async for completion in client.chat.completions.list(order="asc")] == ids
    assert [completion.id async for completion in client.chat.completions.list(order="desc")] == ids[::-1]


async def test_the_list_filters_by_model_and_metadata(client: AsyncOpenAI) -> None:
    wanted = await create(client, model="gpt-4o-mini", grade="A", by="you & me")
    await create(client, model="gpt-4o", grade="A", by="you & me")
    await create(client, model="gpt-4o-mini", grade="B", by="you & me")
    await create(client, model="gpt-4o-mini", grade="A")
    found = client.chat.completions.list(model="gpt-4o-mini", metadata={"grade": "A", "by": "you & me"})
    assert [completion.id async for completion in found] == [wanted.id]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("count", "limit"), [(45, None), (7, 3), (6, 3), (1, 1), (101, 100), (0, 5)])
async def test_paging_by_cursor_finds_each_completion_once(
    simulator: Simulator, client: AsyncOpenAI, order: Literal["asc", "desc"], count: int, limit: int | None
) -> None:
    ids = [f"chatcmpl-{number}" for number in range(count)]
    simulator.seed_completions(ids)
    first = await client.chat.completions.list(order=order, limit=omit if limit is None else limit)
    pages = [page async for page in first.iter_pages()]
    assert [completion.id for page in pages for completion in page.data] == (ids if order == "asc" else ids[::-1])
    assert len(pages) == max(1, math.ceil(count / (limit or 20)))
    assert [page.has_more for page in pages] == [True] * (len(pages) - 1) + [False]
    for page in pages:
        listed: list[str | None] = [completion.id for completion in page.data] or [None]
        assert page.model_extra is not None
        assert (page.model_extra["first_id"], page.model_extra["last_id"]) == (listed[0], listed[-1])


async def test_the_messages_are_those_of_the_request(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="gpt-4o",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Write."}], "name": "somebody"},
        ],
        store=True,
    )
    first, second = [message async for message in client.chat.completions.messages.list(completion.id)]
    assert isinstance(first, ChatCompletionStoreMessage)
    assert (first.id, first.content, first.content_parts) == (f"{completion.id}-0", "Be brief.", None)
    assert second.content == "Write."
    assert second.content_parts is not None
    assert [part.type for part in second.content_parts] == ["text"]
    one_a_page = client.chat.completions.messages.list(completion.id, limit=1, order="desc")
    assert [message.id async for message in one_a_page] == [second.id, first.id]


async def test_the_content_of_a_message_is_the_texts_of_its_parts(client: AsyncOpenAI) -> None:
    image = "https://example.com/a.png"
    completion = await client.chat.completions.create(
        model="gpt-4o",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is "},
                    {"type": "image_url", "image_url": {"url": image}},
                    {"type": "text", "text": "this?"},
                ],
            },
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]},
        ],
        store=True,
    )
    first, second = [message async for message in client.chat.completions.messages.list(completion.id)]
    assert (first.content, second.content) == ("What is this?", None)
    assert first.content_parts is not None
    assert [part.type for part in first.content_parts] == ["text", "image_url", "text"]
    for part in first.content_parts:
        assert part.to_dict().keys() == {"type", "text", "image_url"}


async def test_an_alias_of_a_model_is_answered_by_its_dated_name(client: AsyncOpenAI) -> None:
    completion = await create(client, model="gpt-4o-mini")
    await create(client, model="gpt-4o")
    assert completion.model == "gpt-4o-mini-2024-07-18"
    assert (await client.chat.completions.retrieve(completion.id)).model == completion.model
    for model in ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"):
        found = client.chat.completions.list(model=model)
        assert [completion.id async for completion in found] == [completion.id]
    assert (await create(client, model="ft:gpt-4o:me")).model == "ft:gpt-4o:me"


async def test_azures_client_drives_every_operation(simulator: Simulator) -> None:
    azure = AsyncAzureOpenAI(
        api_key="k", azure_endpoint=simulator.base_url.removesuffix("/v1"), api_version="2024-10-21", max_retries=0
    )
    async with azure as client:
        completion = await create(client, grade="A")
        assert completion.model == "gpt-4o-2024-08-06"
        updated = await client.chat.completions.update(completion.id, metadata={"grade": "B"})
        assert updated.metadata == {"grade": "B"}
        assert [completion.id async for completion in client.chat.completions.list()] == [completion.id]
        assert (await client.chat.completions.delete(completion.id)).deleted


async def test_a_stream_says_the_reply_word_by_word_and_is_stored(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Write."}],
        store=True,
        metadata={"grade": "A"},
        stream=True,
        stream_options={"include_usage": True},
        n=2,
    )
    chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        assert ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True) == chunk
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [choice for chunk in chunks for choice in chunk.choices]
    for index in range(2):
        own = [choice for choice in deltas if choice.index == index]
        assert own[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in own) == TEXT
        assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["stop"]
    stored = await client.chat.completions.retrieve(chunks[0].id)
    assert stored.metadata == {"grade": "A"}
    assert [choice.message.content for choice in stored.choices] == [TEXT, TEXT]
    [usage] = [chunk.usage for chunk in chunks if chunk.usage]
    assert stored.usage is not None
    assert usage.total_tokens == stored.usage.total_tokens


async def test_the_official_client_puts_a_streamed_tool_call_together(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Write."}],
        tools=[{"type": "function", "function": {"name": "grade"}}],
        tool_choice="required",
    ) as stream:
        completion = await stream.get_final_completion()
    [call] = completion.choices[0].message.tool_calls or []
    assert (call.function.name, completion.choices[0].finish_reason) == ("grade", "tool_calls")


async def test_the_seeded_conversation_is_the_text_that_was_ordered(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.seed("chatcmpl-1")
    completion = await client.chat.completions.retrieve("chatcmpl-1")
    assert completion.choices[0].message.content == TEXT
    assert TEXT in [message.content async for message in client.chat.completions.messages.list("chatcmpl-1")]


async def test_a_bad_request_raises_what_the_service_would(client: AsyncOpenAI) -> None:
    fresh = await create(client)
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.update(fresh.id, metadata={f"key{number}": "" for number in range(17)})
    assert caught.value.code == "object_above_max_properties"
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")
