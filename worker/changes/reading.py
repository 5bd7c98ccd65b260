"""How to interpret change files where they do not say it themselves."""

from dataclasses import dataclass
from typing import Literal, get_args

from worker.changes.change import Mode

Format = Literal["jsonl", "json", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
Empty = Literal["keep", "remove"]
AsOf = float | Literal["mtime"]

FIELDS = ("completion_id", "metadata", "mode", "change_id", "as_of")
ID_FIELD = FIELDS[0]


@dataclass(frozen=True, slots=True)
class Reading:
    """How to interpret lines, records and rows.

    Args:
        mode: the mode of a change that names none.
        format: overrides the format in the file's name; None to use the name, and JSON lines for standard input.
        delimiter: separates CSV cells, one character; None for a comma, or a tab in a ``.tsv`` file.
        id_column: the column or field that holds the completion's id.
        empty: what a blank cell of CSV means: ``keep`` the key as it is, or ``remove`` it.
        coerce: replace numbers and booleans by their JSON text, instead of refusing them.
        ignore_unknown: skip unknown fields instead of refusing them, and skip unknown columns (neither a field nor
            ``metadata.KEY``) instead of taking them for metadata keys.
        as_of: the `as_of` of a change that has none, Unix time in seconds; ``mtime`` for the time of its file.
    """

    mode: Mode = "merge"
    format: Format | None = None
    delimiter: str | None = None
    id_column: str = ID_FIELD
    empty: Empty = "keep"
    coerce: bool = False
    ignore_unknown: bool = False
    as_of: AsOf | None = None

    def fields(self) -> tuple[str, ...]:
        """The names of the fields; the id's is as configured."""
        return (self.id_column, *FIELDS[1:])

    @property
    def as_of_seconds(self) -> float | None:
        """The default `as_of`; None for ``mtime``, which only an opened `ChangeFile` knows."""
        return None if self.as_of == "mtime" else self.as_of
