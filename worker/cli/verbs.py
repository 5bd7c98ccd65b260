"""The command's verbs and their parser. A verb's module is imported only if its arguments are needed."""

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
    "enqueue": "validate change files and store their changes",
    "pull": "write the service's completions to a file of changes, to edit and apply",
    "diff": "show what change files would alter, or whether the service has it all",
    "run": "the worker: a daemon, or with --drain until nothing is left",
    "intake": "accept changes over HTTP without applying them, for workers that run elsewhere",
    "status": "show what is pending, in flight, waiting and dead",
    "doctor": "check everything that a run needs, and say what to do",
    "pause": "stop all workers on the queue, until `resume`",
    "resume": "let the workers continue after `pause`",
    "page": "print a link that signs you in to the page of a worker on this machine",
    "batch": "list, show, wait for or withdraw batches: changes that were enqueued together",
    "pending": "list or withdraw pending changes",
    "dead": "list, show, retry or purge the dead letters",
    "simulator": "run a simulated service on a port of this machine, with limits, lag and faults on demand",
    "migrate": "create or upgrade the queue's schema, or print it",
    "settings": "show the settings in effect, each with its source",
    "completion": "print a script that completes verbs and flags in your shell",
    "help": "show the help of a command, or list the commands",
}

_MODULES = {"intake": "receiving"}  # modules whose name differs from the verb


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s']+")


class Action(NamedTuple):
    """One of a verb's actions, with its own arguments."""

    summary: str
    model: type[Any]


class Verb(Protocol):
    """The interface of a verb's module.

    Args:
        MODEL: the dataclass of the arguments; for a verb with actions, one for each, by name.
        EPILOG: optional; the help after the arguments.
    """

    MODEL: type[Any] | Mapping[str, Action]

    def execute(self, arguments: Any) -> int:  # noqa: ANN401 -- each verb's own model
        """Run the verb and return the exit code."""


class Parser(argparse.ArgumentParser):
    """Refuses abbreviated flags (`dead purge --a` would mean `--all`), and suggests what was meant."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 -- argparse's signature
        super().__init__(allow_abbrev=False, **options)
        self.set_defaults(parser=self)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """End the program because of unrecognised words."""
        self.error(f"unrecognized arguments: {' '.join(words)}{_hint(words[0], self._option_string_actions)}")

    def error(self, message: str) -> NoReturn:
        """End the program with the usage and the message, which may quote the input."""
        super().error(printable(_URL.sub(lambda url: shown_url(url[0]), message)))

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 -- argparse's signature
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(action, f"{error.message}{_hint(str(value), action.choices or ())}") from None


def _hint(word: str, known: Iterable[str]) -> str:
    name = word.partition("=")[0]
    near = get_close_matches(name, list(known), n=1)
    if name in near:
        return "; a command's own flags come after it"
    return f"; did you mean {near[0]}?" if near else ""


class Command(NamedTuple):
    """A verb, or one action of a verb, for documents."""

    name: str
    summary: str
    model: type[Any]


def module_of(verb: str) -> Verb:
    """Import and return the verb's module."""
    return cast("Verb", import_module(f"worker.cli.{module_name(verb)}"))


def module_name(verb: str) -> str:
    """Return the name of the verb's module."""
    return _MODULES.get(verb, verb)


def commands_of(verb: str) -> Iterator[Command]:
    """Yield the verb, or each of its actions."""
    model = module_of(verb).MODEL
    if isinstance(model, Mapping):
        for name, action in model.items():
            yield Command(f"{verb} {name}", action.summary, action.model)
    else:
        yield Command(verb, VERBS[verb], model)


def sentence(summary: str) -> str:
    """Return the summary as a sentence."""
    return f"{summary[0].upper()}{summary[1:]}."


def parser_of(verbs: Collection[str]) -> Parser:
    """Return the command's parser, with all verbs by name, and the arguments of the given ones."""
    parser = Parser(
        prog="metasync",
        description="Keeps the metadata of stored chat completions in line with a durable queue of pending changes.",
        epilog="`metasync help COMMAND` shows the help of each.\n\nexit codes:\n"
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
