"""Convert a Python mapping with the fields of a line to a change."""

from collections.abc import AsyncIterable, Iterable, Mapping

from worker.changes.change import InvalidChange, MetadataChange, json_type
from worker.changes.reading import FIELDS
from worker.changes.times import as_of_from
from worker.terminal import shown

Given = MetadataChange | Mapping[str, object]
Changes = Given | Iterable[Given] | AsyncIterable[Given]


def change_from(fields: object) -> MetadataChange:
    """Convert one change.

    Args:
        fields: a `MetadataChange`, or a mapping with ``completion_id``, ``metadata`` and optionally ``mode``,
            ``change_id`` and ``as_of`` (which may also be a `datetime`).

    Raises:
        InvalidChange: the argument is neither, or is no valid change.
    """
    if isinstance(fields, MetadataChange):
        return fields
    if not isinstance(fields, Mapping):
        raise InvalidChange(f"a change must be a MetadataChange or a mapping, not {json_type(fields)}")
    for name in fields:
        if name not in FIELDS:
            raise InvalidChange(f"unknown field {shown(name)}; the fields are {', '.join(FIELDS)}")
    for name in FIELDS[:2]:
        if name not in fields:
            raise InvalidChange(f"the field {name} is missing")
    if "as_of" in fields:
        return MetadataChange(**{**fields, "as_of": as_of_from(fields["as_of"])})
    return MetadataChange(**dict(fields))
