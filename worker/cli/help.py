"""`metasync help`: show a command's help, or list the commands."""

from dataclasses import dataclass
from typing import Annotated

from worker.cli.exits import Exit
from worker.cli.verbs import parser_of
from worker.flags import Flag


@dataclass(frozen=True, slots=True)
class Help:
    """The verb's arguments."""

    command: Annotated[tuple[str, ...], Flag("the command, and its action if it has one", positional=True)] = ()


MODEL = Help


def execute(arguments: Help) -> int:
    """Print the output of the command's `--help`."""
    parser_of(arguments.command[:1]).parse_args([*arguments.command, "--help"])
    return Exit.DONE
