"""`metasync settings`: what is in effect, and where each setting came from."""

import argparse

from config.settings import Settings, masked, variable
from worker.cli.exits import Exit
from worker.cli.flags import LOGGING, WORKING, add_settings, load_settings
from worker.cli.output import say, say_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's flags."""
    parser.add_argument("--json", action="store_true", help="one JSON object: name to value and source")
    add_settings(parser, "queue_url", "store_timeout", "mode", *WORKING, *LOGGING)


def execute(arguments: argparse.Namespace) -> int:
    """Print every setting, secrets masked."""
    loaded = load_settings(arguments)
    rows = [(variable(field), masked(loaded.settings, field), loaded.origins[field]) for field in Settings.model_fields]
    if arguments.json:
        say_json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        say(table([("setting", "value", "source"), *rows]))
    return Exit.DONE
