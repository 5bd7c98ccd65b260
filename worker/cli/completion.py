"""`metasync completion`: a script that completes verbs and flags in a shell."""

from dataclasses import dataclass
from typing import Annotated, Literal

from worker.cli.exits import Exit
from worker.cli.output import say_raw
from worker.cli.verbs import VERBS, parser_of
from worker.flags import Flag


@dataclass(frozen=True, slots=True)
class Completion:
    """The verb's arguments."""

    shell: Annotated[Literal["bash", "zsh"], Flag("the shell that will read it", positional=True)]


MODEL = Completion


def execute(arguments: Completion) -> int:
    """Print the script."""
    import shtab  # noqa: PLC0415 -- only this verb needs it

    say_raw(shtab.complete(parser_of(VERBS), shell=arguments.shell))
    return Exit.DONE
