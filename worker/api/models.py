"""The documented shapes of the service's answers.

Every field is optional: a stored completion differs from a fresh one, and a missing or new field must not make an
answer unreadable. Source: the published OpenAPI document, version 2.3.0, schemas `CreateChatCompletionResponse`,
`ChatCompletionList`, `ChatCompletionDeleted`, `ChatCompletionMessageList` and `ErrorResponse`. The fields of stored
completions alone come from its examples.
"""

from typing import Any

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an answer. Its repr shows no content, since most of it is conversation."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class UrlCitation(Model, frozen=True):
    """A web page that an answer cites, and the position of the citation."""

    start_index: int | None = None
    end_index: int | None = None
    title: str | None = None
    url: str | None = None


class Annotation(Model, frozen=True):
    """A note on a message."""

    type: str | None = None
    url_citation: UrlCitation | None = None


class Audio(Model, frozen=True):
    """A spoken answer; `data` is Base64, `expires_at` Unix time."""

    id: str | None = None
    data: str | None = None
    expires_at: int | None = None
    transcript: str | None = None


class FunctionCall(Model, frozen=True):
    """A function that the model called; `arguments` is the JSON text it made up."""

    name: str | None = None
    arguments: str | None = None


class CustomCall(Model, frozen=True):
    """A custom tool that the model called."""

    name: str | None = None
    input: str | None = None


class ToolCall(Model, frozen=True):
    """A call of a function or, by `type`, of a custom tool."""

    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class Message(Model, frozen=True):
    """What the model said."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    annotations: list[Annotation] | None = None
    audio: Audio | None = None
    function_call: FunctionCall | None = None
    tool_calls: list[ToolCall] | None = None


class ImageUrl(Model, frozen=True):
    """An image, by URL or as Base64 data."""

    url: str | None = None
    detail: str | None = None


class CacheBreakpoint(Model, frozen=True):
    """Where a reusable prefix of a prompt ends."""

    mode: str | None = None


class ContentPart(Model, frozen=True):
    """A text or, by `type`, an image within a message that was sent."""

    type: str | None = None
    text: str | None = None
    image_url: ImageUrl | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class StoredMessage(Message, frozen=True):
    """A message of a stored completion, of any role."""

    id: str | None = None
    name: str | None = None
    content_parts: list[ContentPart] | None = None


class TopLogprob(Model, frozen=True):
    """One of the likeliest tokens at a position, with its probability."""

    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob, frozen=True):
    """The chosen token at a position, and the likeliest ones."""

    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Model, frozen=True):
    """Log probabilities of a choice's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class Choice(Model, frozen=True):
    """One of the answers that the model gave."""

    finish_reason: str | None = None
    index: int | None = None
    logprobs: Logprobs | None = None
    message: Message | None = None


class CompletionTokensDetails(Model, frozen=True):
    """The parts of the completion's tokens."""

    accepted_prediction_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    text_tokens: int | None = None


class PromptTokensDetails(Model, frozen=True):
    """The parts of the prompt's tokens."""

    audio_tokens: int | None = None
    cache_write_tokens: int | None = None
    cached_tokens: int | None = None
    image_tokens: int | None = None
    text_tokens: int | None = None


class Usage(Model, frozen=True):
    """Tokens that the completion used."""

    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    total_tokens: int | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_tokens_details: PromptTokensDetails | None = None


class ModerationResult(Model, frozen=True):
    """What moderation found in one text."""

    type: str | None = None
    model: str | None = None
    flagged: bool | None = None
    categories: dict[str, bool] | None = None
    category_scores: dict[str, float] | None = None
    category_applied_input_types: dict[str, list[str]] | None = None


class ModerationReport(Model, frozen=True):
    """The results of moderation, or an error, by `type`."""

    type: str | None = None
    model: str | None = None
    results: list[ModerationResult] | None = None
    code: str | None = None
    message: str | None = None


class Moderation(Model, frozen=True):
    """Moderation of the input and of the output."""

    input: ModerationReport | None = None
    output: ModerationReport | None = None


class ChatCompletion(Model, frozen=True):
    """A completion, fresh or stored; from `request_id` on, the fields that only a stored one has.

    `created` is Unix time, `seed` a possibly negative 64-bit integer.
    """

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    moderation: Moderation | None = None
    metadata: dict[str, str] | None = None
    request_id: str | None = None
    tool_choice: Any = None
    tools: list[Any] | None = None
    response_format: Any = None
    input_user: Any = None
    seed: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class CompletionPage(Model, frozen=True):
    """A page of stored completions; `last_id` is the cursor of the next."""

    object: str | None = None
    data: list[ChatCompletion] | None = None
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None


class MessagePage(Model, frozen=True):
    """A page of a stored completion's messages; `last_id` is the cursor of the next."""

    object: str | None = None
    data: list[StoredMessage] | None = None
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None


class Deletion(Model, frozen=True):
    """The result of a request to delete a completion."""

    id: str | None = None
    object: str | None = None
    deleted: bool | None = None


class ServiceError(Model, frozen=True):
    """The service's description of a failure. Some gateways send `code` as a number."""

    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class ErrorEnvelope(Model, frozen=True):
    """The body of a failure. Gateways put their text into the fields after `error`."""

    error: ServiceError | str | None = None
    message: str | None = None
    detail: str | None = None
    title: str | None = None
