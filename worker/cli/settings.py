"""`metasync settings`: show the effective settings, and the source of each."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from config.settings import Settings, masked, variable
from worker.cli.exits import Exit
from worker.cli.flags import ALL, Configured, Prints
from worker.cli.output import say, say_json, table, tell
from worker.flags import Flag


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Args:
        value: as text; stars for a secret.
        source: ``flag``, ``environment``, a file's name or ``default``.
    """

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Effective(Configured):
    """The verb's arguments."""

    SETTINGS: ClassVar[tuple[str, ...]] = ALL

    json: Annotated[bool, Flag("print one JSON object: name to value and source"), Prints(dict[str, Setting])] = False


MODEL = Effective


def execute(arguments: Effective) -> int:
    """Print every setting, secrets masked."""
    loaded = arguments.load()
    if loaded.led_astray:
        tell(f"warning: {loaded.led_astray}")
    rows = [(variable(field), masked(loaded.settings, field), loaded.origins[field]) for field in Settings.model_fields]
    if arguments.json:
        say_json({name: Setting(value, source) for name, value, source in rows})
    else:
        say(table([("setting", "value", "source"), *rows]))
    return Exit.DONE
