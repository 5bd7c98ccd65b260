"""Reads pages of a list: the fields of each completion, without its conversation."""

from collections.abc import Collection
from typing import Any

import msgspec

from worker.api.models import Model
from worker.api.parsing import STRICT_ERRORS, fit_metadata, load_json


class Listed(Model, frozen=True):
    """A completion as a page shows it. Its repr shows nothing of the content.

    Args:
        id: None if the page does not show it.
        created: Unix time; None if the page does not show it.
        metadata: None if the page does not show it; ``{}`` if it is empty or null.
        whole: whether `metadata` is all that the page shows; see `Answer.whole`.
        raw: the item's JSON text.
    """

    id: str | None
    created: int | None
    metadata: dict[str, str] | None
    whole: bool
    raw: bytes


class Page(Model, frozen=True):
    """A page of a list.

    Args:
        has_more: whether there is another page; None if the page does not say.
    """

    items: list[Listed]
    has_more: bool | None


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: Any = None


class _Item(msgspec.Struct):
    id: str | None = None
    created: int | None = None
    metadata: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET


class _Choices(msgspec.Struct):
    choices: list[dict[str, msgspec.Raw]] | None = None


_decode_choices = msgspec.json.Decoder(_Choices).decode
_decode_page = msgspec.json.Decoder(_Page).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_page(body: bytes) -> Page | None:
    """Read the answer to a list call; None if it is not a page."""
    try:
        page = _decode_page(body)
        items, has_more = [_listed(bytes(raw)) for raw in page.data], page.has_more
    except STRICT_ERRORS:
        try:
            found = load_json(body)
        except ValueError:
            return None
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, list):
            return None
        items, has_more = [_fitted(each, msgspec.json.encode(_clean(each))) for each in data], found.get("has_more")
    return Page(items=items, has_more=has_more if isinstance(has_more, bool) else None)


def read_fields(body: bytes, names: Collection[str]) -> dict[str, Any]:
    """The named fields of a JSON object that it has; values are JSON text."""
    try:
        found = _decode_fields(body)
    except STRICT_ERRORS:
        try:
            anything = load_json(body)
        except ValueError:
            return {}
        return (
            {name: _clean(anything[name]) for name in names if name in anything} if isinstance(anything, dict) else {}
        )
    return {name: found[name] for name in names if name in found}


def read_replies(body: bytes) -> list[Any]:
    """The messages with which the model answered, as JSON text or as JSON; empty if there are none."""
    try:
        return [each["message"] for each in _decode_choices(body).choices or () if "message" in each]
    except STRICT_ERRORS:
        choices = read_fields(body, ["choices"]).get("choices")
    if isinstance(choices, msgspec.Raw):
        choices = _clean(load_json(bytes(choices)))
    whole = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    return [each["message"] for each in whole if "message" in each]


def _listed(raw: bytes) -> Listed:
    try:
        item = _decode_item(raw)
    except STRICT_ERRORS:
        return _fitted(load_json(raw), raw)
    metadata = None if item.metadata is msgspec.UNSET else item.metadata or {}
    return Listed(id=item.id, created=item.created, metadata=metadata, whole=True, raw=raw)


def _fitted(found: object, raw: bytes) -> Listed:
    """Keep the fields of an item that have the right type."""
    if not isinstance(found, dict):
        return Listed(id=None, created=None, metadata=None, whole=False, raw=raw)
    own_id, created = found.get("id"), found.get("created")
    metadata, whole = fit_metadata(found["metadata"]) if "metadata" in found else (None, True)
    return Listed(
        id=own_id if isinstance(own_id, str) else None,
        created=created if isinstance(created, int) else None,
        metadata=metadata,
        whole=whole,
        raw=raw,
    )


def _clean(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Make a value writable: half a surrogate pair has no UTF-8 form, and NaN no JSON form."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isprintable() else value
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)  # encoders refuse such a number
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return value
