"""How change files are to be understood, as far as they do not say it themselves."""

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
    """How lines, records and rows are to be understood.

    Args:
        mode: of a change that does not name one.
        format: whatever a file's name says; None for what it says, JSON lines of standard input.
        delimiter: of the cells of CSV, one character; None for a comma, in a file named ``.tsv`` a tab.
        id_column: the column or field that holds the completion's id.
        empty: what a blank cell of CSV means: ``keep`` the key as it is, or ``remove`` it.
        coerce: write values that are numbers or booleans as JSON does, instead of refusing them.
        ignore_unknown: pass over fields that are none of a change's, and columns that are neither such a field nor
            named ``metadata.KEY``, instead of refusing the ones and taking the others for keys.
        as_of: of a change that does not tell it, Unix time in seconds; ``mtime`` for when its file was last changed.
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
        """The names of the fields, with the id's."""
        return (self.id_column, *FIELDS[1:])

    @property
    def as_of_seconds(self) -> float | None:
        """Of a change that does not tell it; of a file the opened `ChangeFile` knows it."""
        return None if self.as_of == "mtime" else self.as_of
