"""Parse and validate requests as the service does: URL, JSON body, metadata, query of a list."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from worker.simulator.answers import RequestError

Operation = Literal["update", "get", "list", "delete", "messages", "create"]

# OpenAI's published specification, schema `Metadata`; lengths are counted in code points.
MAX_PAIRS = 16
MAX_KEY_LENGTH = 64
MAX_VALUE_LENGTH = 512

MAX_PAGE = 100
DEFAULT_PAGE = 20

# OpenAI's path, and Azure's two: the current one, and the one with a dated api-version in the query.
_PATH = re.compile(r"/(?:v1|openai/v1|openai)/chat/completions(?:/([^/]*)(/messages)?)?")
# Azure's older path, which names the model; only create calls use it.
_DEPLOYMENT_PATH = re.compile(r"/openai/deployments/([^/]+)/chat/completions")
# Keys: the method, whether the path has an id, and whether it ends in /messages. An empty id counts as none.
_OPERATIONS: dict[tuple[str, bool, bool], Operation] = {
    ("POST", True, False): "update",
    ("GET", True, False): "get",
    ("GET", True, True): "messages",
    ("DELETE", True, False): "delete",
    ("GET", False, False): "list",
    ("POST", False, False): "create",
}
_METADATA_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)

_decode = msgspec.json.Decoder().decode

JsonObject = dict[str, Any]


class Call(msgspec.Struct, frozen=True):
    """One request to the service: the operation and the completion.

    Args:
        query: the raw query string.
        deployment: Azure's name for a model; empty if the path has none.
    """

    operation: Operation
    completion_id: str
    query: str
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The requested page of a list; `after` is the id of the previous page's last item."""

    after: str | None
    limit: int
    descending: bool
    model: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def parse_call(method: str, target: str) -> Call | Literal["unknown_url", "method_not_allowed"]:
    """Parse the request line.

    Args:
        target: path and query as received: percent-encoded, not normalised.
    """
    path, _, query = target.partition("?")
    match = _PATH.fullmatch(path)
    if match is None:
        return _parse_deployment(method, path, query)
    quoted_id, messages = match.groups()
    completion_id = unquote(quoted_id) if quoted_id else ""
    # A normalising server would see another URL.
    if completion_id in (".", ".."):
        return "unknown_url"
    operation = _OPERATIONS.get((method, bool(completion_id), bool(messages)))
    if operation is None:
        return "method_not_allowed"
    return Call(operation, completion_id, query)


def _parse_deployment(method: str, path: str, query: str) -> Call | Literal["unknown_url", "method_not_allowed"]:
    match = _DEPLOYMENT_PATH.fullmatch(path)
    if match is None:
        return "unknown_url"
    if method != "POST":
        return "method_not_allowed"
    return Call("create", "", query, unquote(match[1]))


def parse_object(body: bytes, content_type: str) -> JsonObject:
    """Parse a request's body as a JSON object.

    Raises:
        RequestError: the body is no JSON object.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            400,
            f"Unsupported content type: '{content_type}'. This API method only accepts 'application/json' requests.",
            code="unsupported_content_type",
        )
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(value, dict):
        raise RequestError(
            400, f"Invalid type for body: expected an object, but got {json_type(value)} instead.", code="invalid_type"
        )
    return value


def parse_update(body: JsonObject, rejected_text: str | None) -> dict[str, str] | None:
    """Return the metadata of an update; None for null.

    Args:
        rejected_text: metadata that contains this text is rejected.

    Raises:
        RequestError: the service would refuse the update.
    """
    for name in body:
        if name != "metadata":
            raise RequestError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if "metadata" not in body:
        raise missing_parameter("metadata")
    return check_metadata(body["metadata"], rejected_text)


def check_metadata(metadata: object, rejected_text: str | None) -> dict[str, str] | None:
    """Validate the value as metadata; None for null.

    Raises:
        RequestError: it breaks one of the service's rules; the message quotes what was sent.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise RequestError(
            400,
            "Invalid type for 'metadata': expected an object with string keys and values, "
            f"but got {json_type(metadata)} instead.",
            param="metadata",
            code="invalid_type",
        )
    check_pairs(metadata)
    for key, value in metadata.items():
        _check_pair(key, value, rejected_text)
    return metadata


def sent_values(body: bytes) -> list[str]:
    """Return the metadata values in a request's body; none if the body is malformed."""
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return [text for text in metadata.values() if isinstance(text, str)] if isinstance(metadata, dict) else []


def trimmed(metadata: Mapping[str, str], max_length: int | None) -> Mapping[str, str]:
    """Return the map with trimmed values, as a service that trims silently stores it; unchanged for None."""
    if max_length is None:
        return metadata
    return {key: value.strip()[:max_length] for key, value in metadata.items()}


def check_pairs(metadata: Mapping[str, object]) -> None:
    """Raise RequestError if there are too many pairs."""
    if len(metadata) > MAX_PAIRS:
        raise RequestError(
            400,
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, "
            f"but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )


def _check_pair(key: str, value: object, rejected_text: str | None) -> None:
    if len(key) > MAX_KEY_LENGTH:
        raise RequestError(
            400,
            f"Invalid property name in 'metadata': '{key}' is too long. Expected a property name with maximum "
            f"length {MAX_KEY_LENGTH}, but got one with length {len(key)} instead.",
            param="metadata",
            code="property_name_above_max_length",
        )
    param = f"metadata.{key}"
    if not isinstance(value, str):
        raise RequestError(
            400,
            f"Invalid type for '{param}': expected a string, but got {json_type(value)} instead.",
            param=param,
            code="invalid_type",
        )
    if len(value) > MAX_VALUE_LENGTH:
        raise RequestError(
            400,
            f"Invalid '{param}': string too long. Expected a string with maximum length {MAX_VALUE_LENGTH}, "
            f"but got a string with length {len(value)} instead: '{value}'.",
            param=param,
            code="string_above_max_length",
        )
    if rejected_text is not None and (rejected_text in key or rejected_text in value):
        raise RequestError(400, f"Invalid value: '{value}'.", param=param, code="invalid_value")


def parse_list(query: str) -> PageQuery:
    """Parse the query of a list of completions; the default order is descending.

    Raises:
        RequestError: a parameter is invalid.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    filters = []
    for name, value in pairs:
        match = _METADATA_FILTER.fullmatch(name)
        if match:
            filters.append((match[1], value))
    parameters = dict(pairs)
    return PageQuery(
        after=parameters.get("after"),
        limit=_page_size(parameters.get("limit")),
        descending=_order(parameters.get("order", "desc")) == "desc",
        model=parameters.get("model"),
        metadata=tuple(filters),
    )


def parse_messages(query: str) -> PageQuery:
    """Parse the query of a list of messages; the default order is ascending.

    Raises:
        RequestError: a parameter is invalid.
    """
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    return PageQuery(
        after=parameters.get("after"),
        limit=_page_size(parameters.get("limit")),
        descending=_order(parameters.get("order", "asc")) == "desc",
    )


def _page_size(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE
    try:
        limit = int(text)
    except ValueError:
        raise RequestError(
            400,
            f"Invalid type for 'limit': expected an integer, but got '{text}' instead.",
            param="limit",
            code="invalid_type",
        ) from None
    if not 1 <= limit <= MAX_PAGE:
        below = limit < 1
        raise RequestError(
            400,
            f"Invalid 'limit': integer {'below minimum' if below else 'above maximum'} value. "
            f"Expected a value {'>= 1' if below else f'<= {MAX_PAGE}'}, but got {limit} instead.",
            param="limit",
            code="integer_below_min_value" if below else "integer_above_max_value",
        )
    return limit


def _order(text: str) -> str:
    if text not in ("asc", "desc"):
        raise RequestError(
            400,
            f"Invalid value: '{text}'. Supported values are: 'asc' and 'desc'.",
            param="order",
            code="invalid_value",
        )
    return text


def missing_parameter(name: str) -> RequestError:
    """Return the error for a missing required parameter."""
    return RequestError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def json_type(value: object) -> str:
    """Name the value's type in the service's terms."""
    return _JSON_TYPES[type(value)]
