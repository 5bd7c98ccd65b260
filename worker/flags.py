"""A command's arguments, declared once: as annotated fields of a frozen dataclass.

Parser, help, reference page, shell completion and the typed value for the command all come from that declaration.
The module imports nothing else of metasync, because the simulator uses it too.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Path = tuple[str, ...]
T = TypeVar("T")


class BadValue(ValueError):
    """A field's value is invalid, or conflicts with another field; the usage error names the flag that set it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


class Flag(NamedTuple):
    """How a dataclass field becomes a flag.

    Args:
        name: the flag, if it is not the field's name (`max_duration`: `--max-duration`); for a positional argument, its
            metavar.
        short: the one-letter form, such as ``-o``.
        parse: turns text into a value; raises ValueError with a message for the user.
        default: how help describes the default, if the field's default does not say it.
        show: formats the field's default for help.
        sets: the value that a switch sets.
        values: the only allowed words, with the value that each sets.
        files: whether the value is a file's path; shell completion uses it.
        group: the title under which help lists the flag, if the model has none.
        keys: the words that a value may contain, with their meanings; `parse` enforces them.
    """

    help: str
    name: str = ""
    metavar: str = ""
    short: str = ""
    parse: Callable[[str], Any] | None = None
    default: str = ""
    show: Callable[[Any], str] = str
    sets: bool = True
    values: Mapping[str, Any] | None = None
    files: bool = False
    positional: bool = False
    group: str = ""
    keys: Mapping[str, str] = MappingProxyType({})


class Group(NamedTuple):
    """Marks a field whose value is a dataclass with flags, or is made from one.

    Args:
        title: under which help lists the flags.
        model: the dataclass that declares the flags, if the field's type is not one.
        make: converts the model to the field's value.
    """

    title: str
    model: type[Any] | None = None
    make: Callable[[Any], Any] | None = None


class Argument(NamedTuple):
    """One argument of a command, as parsers and pages need it.

    Args:
        path: names of fields, from the model down to the one that it sets.
        name: the flag, or the metavar of a positional argument.
        default: as help shows it; empty to show none.
        choices: the only allowed words; `values` maps them to values, if these differ.
        switch: set for a flag without a value: it turns on, turns off, or (`either`) also has a `--no-` form.
        many: whether it takes several values; a flag is repeated.
        keys: the words that a value may name, and what each means.
    """

    path: Path
    name: str
    help: str
    group: str = ""
    metavar: str = ""
    default: str = ""
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    values: Mapping[str, Any] | None = None
    switch: Literal["on", "off", "either"] | None = None
    many: bool = False
    keys: Mapping[str, str] = MappingProxyType({})
    required: bool = False
    files: bool = False
    short: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All spellings of the flag."""
        names = (self.short, self.name) if self.short else (self.name,)
        return (*names, f"--no-{self.name.removeprefix('--')}") if self.switch == "either" else names

    @property
    def help_text(self) -> str:
        """The help, with the choices (if the metavar hides them) or the default."""
        if self.choices and self.metavar:
            return f"{self.help}: {' or '.join(self.choices)}"
        return f"{self.help} (default: {self.default})" if self.default else self.help


def arguments_of(model: type[Any], path: Path = (), group: str = "") -> Iterator[Argument]:
    """Yield the arguments that the dataclass declares, in the order of its fields."""
    hints = get_type_hints(model, include_extras=True)
    for declared in fields(model):
        kind, notes = _unwrapped(hints[declared.name])
        here = (*path, declared.name)
        for note in notes:
            match note:
                case Flag():
                    default = note.default or _default_text(note, declared.default)
                    required = declared.default is MISSING and declared.default_factory is MISSING
                    yield _argument(note, kind, here, group, default, required=required)
                case Group():
                    yield from arguments_of(note.model or kind, here, note.title)


def _default_text(flag: Flag, default: object) -> str:
    if flag.values:
        return next((word for word, value in flag.values.items() if value == default), "")
    silent = default is MISSING or default is None or isinstance(default, bool) or default == ()
    return "" if silent else flag.show(default)


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:  # noqa: ANN401 -- annotations have no common type
    """Return the type without None, and its annotations."""
    notes: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        notes = tuple(rest)
    if get_origin(hint) in (Union, UnionType):
        hint = next((part for part in get_args(hint) if part is not NoneType), hint)
    return hint, notes


def _argument(
    flag: Flag,
    kind: Any,  # noqa: ANN401 -- annotations have no common type
    path: Path,
    group: str,
    default: str,
    *,
    required: bool,
) -> Argument:
    many = get_origin(kind) is tuple
    if many:
        kind = get_args(kind)[0]
    choices = tuple(flag.values or ()) or (get_args(kind) if get_origin(kind) is Literal else ())
    own_name = path[-1].upper() if flag.positional else f"--{path[-1].replace('_', '-')}"
    name = flag.name or own_name
    switch: Literal["on", "off"] | None = None
    if kind is bool and not choices:
        switch = "on" if flag.sets else "off"
    listed = switch or (choices and not flag.positional)
    return Argument(
        path=path,
        name=name,
        help=flag.help,
        group=flag.group or group,
        metavar="" if listed else flag.metavar or name.removeprefix("--").replace("-", "_").upper(),
        default=default,
        parse=flag.parse or (kind if kind in (int, float) else None),
        choices=choices,
        values=flag.values,
        switch=switch,
        many=many,
        required=required,
        keys=flag.keys,
        files=flag.files,
        short=flag.short,
    )


def add_arguments(parser: argparse.ArgumentParser, model: type[T], more: Sequence[Argument] = ()) -> None:
    """Add the model's arguments to the parser; the parsed namespace's `read` returns the model's value.

    Args:
        more: further arguments; the first name of their paths is an unannotated field, a mapping that receives them.
    """
    arguments = [*arguments_of(model), *more]
    groups: dict[str, argparse._ArgumentGroup] = {}
    for argument in arguments:
        if argument.group and argument.group not in groups:
            groups[argument.group] = parser.add_argument_group(argument.group)
        _add(groups.get(argument.group, parser), argument)
    parser.set_defaults(read=lambda namespace: _read(parser, model, arguments, namespace))


def _add(group: argparse._ActionsContainer, argument: Argument) -> None:
    options: dict[str, Any] = {"help": argument.help_text.replace("%", "%%"), "default": None}
    positional = not argument.name.startswith("-")
    if argument.switch == "either":
        options["action"] = argparse.BooleanOptionalAction
    elif argument.switch:
        options |= {"action": "store_const", "const": argument.switch == "on"}
    else:
        if argument.parse:
            options["type"] = _explained(argument.parse)
        if argument.choices:
            options["choices"] = argument.choices
        if argument.metavar:
            options["metavar"] = argument.metavar
        if positional and argument.many:
            options["nargs"] = "+" if argument.required else "*"
        elif argument.many:
            options["action"] = "append"
    dest = ".".join(argument.path)
    names = [argument.short, argument.name] if argument.short else [argument.name]
    action = group.add_argument(dest, **options) if positional else group.add_argument(*names, dest=dest, **options)
    if argument.files:
        action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined] # for shtab


def _explained(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> object:
        try:
            return parse(text)
        except BadValue as error:
            raise argparse.ArgumentTypeError(error.message) from None
        except ValueError as error:
            # The messages of int() and float() are about Python.
            kinds: dict[object, str] = {int: "whole number", float: "number"}
            message = f"{text!r} is no {kinds[parse]}" if parse in kinds else str(error)
            raise argparse.ArgumentTypeError(message) from None

    return parsed


def _read(
    parser: argparse.ArgumentParser, model: type[T], arguments: Sequence[Argument], namespace: argparse.Namespace
) -> T:
    """Return the model's value; an invalid one ends the program with a usage error naming the flag."""
    given = _Given({}, {argument.path: argument.name for argument in arguments})
    for argument in arguments:
        value = getattr(namespace, ".".join(argument.path))
        if value is not None and value != []:
            given.take(argument, value)
    try:
        return cast("T", _built(model, (), given))
    except _Misfit as error:
        parser.error(f"argument {error.name}: {error}")


class _Misfit(Exception):
    """The given values do not make a valid model: the argument's name, and why."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class _Given(NamedTuple):
    """The given values and the names of all arguments, by field path."""

    values: dict[Path, Any]
    names: dict[Path, str]

    def take(self, argument: Argument, value: Any) -> None:  # noqa: ANN401 -- any parsed value
        """Add the argument's parsed value."""
        if argument.many:
            self.values[argument.path] = tuple(value)
        else:
            self.values[argument.path] = argument.values[value] if argument.values else value

    def below(self, path: Path) -> dict[Path, Any]:
        """Return the given values of the field's own fields."""
        return {name: value for name, value in self.values.items() if name[: len(path)] == path != name}


def _built(kind: type[Any], path: Path, given: _Given) -> Any:  # noqa: ANN401 -- a dataclass of any kind
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for declared in fields(kind):
        here = (*path, declared.name)
        if here in given.values:
            values[declared.name] = given.values[here]
        elif below := given.below(here):
            inner, notes = _unwrapped(hints[declared.name])
            group = next((note for note in notes if isinstance(note, Group)), None)
            if group and group.model and group.make:
                values[declared.name] = group.make(_built(group.model, here, given))
            elif isinstance(inner, type) and is_dataclass(inner):
                values[declared.name] = _built(inner, here, given)
            else:
                values[declared.name] = {name[-1]: value for name, value in below.items()}
        elif path and declared.default is MISSING:
            raise _Misfit(given.names[next(iter(given.below(path)))], f"goes with {given.names[here]} only")
    try:
        return kind(**values)
    except BadValue as error:
        here = (*path, error.field)
        raise _Misfit(given.names[here], error.message) from None
