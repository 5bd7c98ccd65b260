"""The verbs of the command, and a parser for them. A verb's module is imported only where its arguments are wanted."""

import argparse
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, NoReturn, Protocol, cast

from config.urls import shown_url
from worker.cli.exits import Exit
from worker.terminal import printable

VERBS = {
    "demo": "see it at work: a simulated service, 2,000 sample changes, every result checked",
    "apply": "enqueue change files and apply them until nothing is left",
    "enqueue": "validate change files and store what they hold",
    "pull": "what is on the service, as a file of changes that can be edited and applied",
    "diff": "what change files would change, or whether the service has all that they want",
    "run": "the worker: a daemon, or with --drain until nothing is left",
    "intake": "take changes in over HTTP, and apply none: the producers' side where workers run elsewhere",
    "status": "what is pending, in flight, waiting and dead",
    "doctor": "look at all that a run needs, and say of each thing how it is and what to do",
    "pause": "have no worker start anything, until `resume`",
    "resume": "let workers go on after `pause`",
    "page": "print a link that signs you in to the page of a worker on this machine",
    "batch": "list, show, wait for or withdraw batches: what was handed in together",
    "pending": "list or withdraw what waits in the queue",
    "dead": "list, show, retry or purge the dead letters",
    "simulator": "the service on a port of this machine, with limits, lag and faults to order",
    "migrate": "create or upgrade the queue's schema, or print it",
    "settings": "the effective settings, each with its source",
    "completion": "print a script that completes verbs and flags in your shell",
    "help": "what a command takes, or what commands there are",
}

_MODULES = {"intake": "receiving"}  # those that are not called like the verb


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s']+")


class Action(NamedTuple):
    """One of several things that a verb does, each with arguments of its own."""

    summary: str
    model: type[Any]


class Verb(Protocol):
    """What each verb's module offers.

    Args:
        MODEL: the dataclass that declares the arguments; of a verb with actions, that of each by name.
        EPILOG: if there is one, what help says after the arguments.
    """

    MODEL: type[Any] | Mapping[str, Action]

    def execute(self, arguments: Any) -> int:  # noqa: ANN401 -- each verb's own model
        """Do it; returns the exit code."""


class Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, as `--a` of `dead purge` would be `--all`, and says what was probably meant."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 -- as argparse has them
        super().__init__(allow_abbrev=False, **options)
        self.set_defaults(parser=self)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """End the program over words that no argument takes."""
        self.error(f"unrecognized arguments: {' '.join(words)}{_hint(words[0], self._option_string_actions)}")

    def error(self, message: str) -> NoReturn:
        """End the program with the usage and the message, which may quote what was typed or pasted."""
        super().error(printable(_URL.sub(lambda url: shown_url(url[0]), message)))

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 -- as argparse has it
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(action, f"{error.message}{_hint(str(value), action.choices or ())}") from None


def _hint(word: str, known: Iterable[str]) -> str:
    name = word.partition("=")[0]
    near = get_close_matches(name, list(known), n=1)
    if name in near:
        return "; a command's own flags stand after it"
    return f"; did you mean {near[0]}?" if near else ""


class Command(NamedTuple):
    """A verb, or one action of a verb, as pages need it."""

    name: str
    summary: str
    model: type[Any]


def module_of(verb: str) -> Verb:
    """The verb's module."""
    return cast("Verb", import_module(f"worker.cli.{module_name(verb)}"))


def module_name(verb: str) -> str:
    """What the verb's module is called."""
    return _MODULES.get(verb, verb)


def commands_of(verb: str) -> Iterator[Command]:
    """The verb, or each of its actions."""
    model = module_of(verb).MODEL
    if isinstance(model, Mapping):
        for name, action in model.items():
            yield Command(f"{verb} {name}", action.summary, action.model)
    else:
        yield Command(verb, VERBS[verb], model)


def sentence(summary: str) -> str:
    """The summary where it stands alone."""
    return f"{summary[0].upper()}{summary[1:]}."


def parser_of(verbs: Collection[str]) -> Parser:
    """The command's parser, which knows all verbs by name and the arguments of these."""
    parser = Parser(
        prog="metasync",
        description="Keeps the metadata of stored chat completions in line with a durable queue of pending changes.",
        epilog="`metasync help COMMAND` says what each takes.\n\nexit codes:\n"
        + "\n".join(f"  {code:<4} {code.meaning.replace('`', '')}" for code in Exit),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    parser.add_argument(
        "-v", dest="verbose", action="store_true", help="with --version: print commit, Python and libraries as well"
    )
    names = parser.add_subparsers(metavar="COMMAND")
    for name, summary in VERBS.items():
        subparser = names.add_parser(name, help=summary, description=sentence(summary))
        if name in verbs:
            module = module_of(name)
            _declare(subparser, module.MODEL)
            if epilog := getattr(module, "EPILOG", None):
                subparser.epilog, subparser.formatter_class = epilog, argparse.RawDescriptionHelpFormatter
    return parser


def _declare(parser: argparse.ArgumentParser, model: type[Any] | Mapping[str, Action]) -> None:
    from worker.cli.flags import add_arguments  # noqa: PLC0415 -- knows the settings: slow to import, not for --help

    if not isinstance(model, Mapping):
        add_arguments(parser, model)
        return
    actions = parser.add_subparsers(metavar="ACTION")
    for name, action in model.items():
        subparser = actions.add_parser(name, help=action.summary, description=sentence(action.summary))
        add_arguments(subparser, action.model)
