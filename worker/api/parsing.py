"""Reads JSON tolerantly: keeps what fits, drops the rest, raises nothing."""

import json
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from worker.api.models import Model

M = TypeVar("M", bound=Model)

# msgspec raises other errors for bad UTF-8 and for deep nesting.
STRICT_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(body: bytes, model: type[M]) -> M | None:
    """Parse an answer as the model, by its types. If that fails, drop what does not fit and parse again.

    Returns:
        None if the body is not a JSON object.
    """
    try:
        strictly: M = _decoder(model).decode(body)
    except STRICT_ERRORS:
        pass
    else:
        return strictly
    try:
        found = load_json(body)
    except ValueError:
        return None
    return _fit_model(found, model) if isinstance(found, dict) else None


def load_json(body: bytes) -> Any:  # noqa: ANN401 -- JSON is anything
    """Read JSON as generously as Python does: with a byte order mark, NaN, or half a surrogate pair.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def fit_metadata(found: object) -> tuple[dict[str, str] | None, bool]:
    """Return the metadata pairs that can be sent back, which are strings, and whether these are all pairs found.

    null is an empty map. Any other value that is not a map gives None.
    """
    if found is None:
        return {}, True
    if not isinstance(found, dict):
        return None, False
    fit = {key: value for key, value in found.items() if isinstance(value, str) and _is_utf8(key) and _is_utf8(value)}
    return fit, len(fit) == len(found)


def _is_utf8(text: str) -> bool:
    """Whether the text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def _decoder(model: type[Model]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(model)


@cache
def _fields(model: type[Model]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(model))


def _fit_model(found: dict[str, Any], model: type[M]) -> M:
    return model(**{name: _fit(found[name], wanted) for name, wanted in _fields(model) if name in found})


def _fit(found: Any, wanted: Any) -> Any:  # noqa: ANN401 -- any JSON, any field's type
    """Return the part of the value that fits the type; None when no part does."""
    try:
        return msgspec.convert(found, wanted)
    except (msgspec.ValidationError, RecursionError):
        pass
    arms, origin = get_args(wanted), get_origin(wanted)
    if origin is UnionType:
        fitted = (_fit(found, arm) for arm in arms if arm is not NoneType)
        return next((value for value in fitted if value is not None), None)
    if origin is list and isinstance(found, list):
        return [value for value in (_fit(item, arms[0]) for item in found) if value is not None]
    if origin is dict and isinstance(found, dict):
        pairs = ((key, _fit(item, arms[1])) for key, item in found.items())
        return {key: value for key, value in pairs if value is not None}
    if isinstance(wanted, type) and issubclass(wanted, Model) and isinstance(found, dict):
        return _fit_model(found, wanted)
    return None
