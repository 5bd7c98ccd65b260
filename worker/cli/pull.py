"""`metasync pull`: write completions as changes that would leave each one as it is."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Self

from config.settings import ConfigurationError
from worker.changes.reading import ID_FIELD
from worker.cli.failing import failing_as_json
from worker.cli.flags import LOGGING, READING, Configured, Prints
from worker.cli.job import run_async
from worker.cli.pulling import Goal, Place, Report, pull
from worker.cli.syncing import prepared, stdout_is_terminal
from worker.flags import BadValue, Flag
from worker.sync.lines import FIELDS, FORMATS, Format
from worker.sync.listing import Filter, Order
from worker.sync.target import Unusable, is_stdout
from worker.terminal import shown as quoted

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_GZIP = ".gz"


@dataclass(frozen=True, slots=True)
class Fields:
    """Further fields of a line, by name."""

    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse names separated by commas.

        Raises:
            ValueError: a name is unknown.
        """
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in names:
            if name not in FIELDS:
                raise ValueError(f"{quoted(name)} is not one of the fields: {', '.join(FIELDS)}")
        return cls(names)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{quoted(text)} must be a key, '=' and a value")
    return key, value


def _time(text: str) -> float:
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{quoted(text)} must be a date, a time such as 2026-11-01T12:00Z, or Unix seconds") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{quoted(text)} must be a whole number above 0")
    return int(text)


@dataclass(frozen=True, slots=True)
class PullArguments(Configured):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = (*READING, *LOGGING)

    output: Annotated[
        str | None,
        Flag("the file to write: .jsonl, .ndjson or .csv, each also .gz", short="-o", metavar="FILE", files=True),
    ] = None
    format: Annotated[Format | None, Flag("the format of standard output, or of a file with another suffix")] = None
    overwrite: Annotated[bool, Flag("replace an existing file")] = False
    resume: Annotated[bool, Flag("continue after the last whole line of an unfinished file")] = False
    of: Annotated[
        tuple[str, ...],
        Flag("exactly the completions that this file of changes names", metavar="FILE", files=True),
    ] = ()
    ids: Annotated[
        str | None,
        Flag("exactly the completions in this file, one id per line; - is standard input", metavar="FILE", files=True),
    ] = None
    id_column: Annotated[str, Flag("for --of: the column or field with the completion's id", metavar="NAME")] = ID_FIELD
    model: Annotated[str | None, Flag("only completions of this model")] = None
    metadata: Annotated[
        tuple[tuple[str, str], ...], Flag("only those with this pair; repeatable", metavar="KEY=VALUE", parse=_pair)
    ] = ()
    created_after: Annotated[
        float | None, Flag("only those created at this time or later, such as 2026-11-01", metavar="TIME", parse=_time)
    ] = None
    created_before: Annotated[float | None, Flag("only those created before", metavar="TIME", parse=_time)] = None
    limit: Annotated[int | None, Flag("at most so many lines in total", metavar="N", parse=_count)] = None
    order: Annotated[Order, Flag("the order by time of creation")] = "asc"
    fields: Annotated[
        Fields | None,
        Flag(
            "further fields of each line, separated by commas, which `enqueue --ignore-unknown` skips; "
            "the conversation is written only with `messages`",
            name="--with",
            metavar="FIELD,...",
            parse=Fields.parse,
        ),
    ] = None
    json: Annotated[bool, Flag("print the summary as one JSON object; needs --output"), Prints(Report)] = False

    def __post_init__(self) -> None:
        by_id = "--of" if self.of else "--ids" if self.ids is not None else None
        filters = ("model", "metadata", "created_after", "created_before", "limit")
        given = [name for name in filters if getattr(self, name) not in (None, ())]
        if self.of and self.ids is not None:
            raise BadValue("ids", "names completions, as --of does: use one of them")
        if by_id and given:
            raise BadValue(given[0], f"filters the list, but {by_id} names the completions")
        if by_id and self.order != "asc":
            raise BadValue("order", f"sorts the list, but {by_id} names the completions in order")
        if len(dict(self.metadata)) < len(set(self.metadata)):
            raise BadValue("metadata", "asks for two values of one key: no completion has both")
        if self.overwrite and self.resume:
            raise BadValue("resume", "continues the file that --overwrite replaces")
        named = self.output is not None and not is_stdout(self.output)
        if self.resume and not named:
            raise BadValue("resume", "needs the file to continue: --output FILE")
        if self.json and not named:
            raise BadValue("json", "needs --output FILE: the lines go to standard output")
        after, before = self.created_after, self.created_before
        if after is not None and before is not None and before <= after:
            raise BadValue("created_before", "is not after --created-after: no completion fits both")


MODEL = PullArguments
EPILOG = """Each line is a change that leaves its completion as it is, so that this changes metadata and restores it:

  metasync pull -o before.jsonl --of labels.jsonl
  metasync apply labels.jsonl
  metasync apply before.jsonl

Files are written with mode 0600. Conversations are written only with `--with messages`."""


def execute(arguments: PullArguments) -> int:
    """Write a line for each completion."""
    with failing_as_json(lambda error, code: Report(exit_code=code, error=error), wanted=arguments.json):
        try:
            place = _place(arguments)
            to_terminal = place is None and stdout_is_terminal()
            job, progress = prepared(arguments, shown=not to_terminal)
            return run_async(pull(job, _goal(arguments, place), progress=progress))
        except Unusable as error:
            raise ConfigurationError(str(error)) from None


def _goal(arguments: PullArguments, place: Place | None) -> Goal:
    wanted = Filter(
        model=arguments.model,
        metadata=dict(arguments.metadata),
        created_after=arguments.created_after,
        created_before=arguments.created_before,
        limit=arguments.limit,
        order=arguments.order,
    )
    return Goal(
        place=place,
        format=arguments.format or "jsonl",
        fields=arguments.fields.names if arguments.fields else (),
        of=arguments.of,
        ids=arguments.ids,
        id_column=arguments.id_column,
        wanted=wanted,
        json=arguments.json,
    )


def _place(arguments: PullArguments) -> Place | None:
    """Return the file for the lines; None for standard output.

    Raises:
        Unusable: the name does not tell the format.
    """
    path = arguments.output
    if path is None or is_stdout(path):
        return None
    stem = path.lower().removesuffix(_GZIP)
    found = arguments.format or _SUFFIXES.get(Path(stem).suffix)
    if found is None and Path(path).exists() and not Path(path).is_file():
        found = "jsonl"  # a pipe
    if found is None:
        known = ", ".join(_SUFFIXES)
        way_out = f"or say --format {' or '.join(FORMATS)}"
        raise Unusable(f"{path}: the name must end in {known}, each also with .gz; {way_out}")
    return Place(path, found, gzipped=stem != path.lower(), overwrite=arguments.overwrite, resume=arguments.resume)
