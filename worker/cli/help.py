"""`metasync help`: what a command takes, or what commands there are."""

from dataclasses import dataclass
from typing import Annotated

from worker.cli.exits import Exit
from worker.cli.verbs import parser_of
from worker.flags import Flag


@dataclass(frozen=True, slots=True)
class Help:
    """The verb's arguments."""

    command: Annotated[tuple[str, ...], Flag("the command, and its action if it has any", positional=True)] = ()


MODEL = Help


def execute(arguments: Help) -> int:
    """Print what `--help` of the command prints."""
    parser_of(arguments.command[:1]).parse_args([*arguments.command, "--help"])
    return Exit.DONE
