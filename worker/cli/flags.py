"""Settings as flags: the same names, meanings and checks as in the environment."""

import argparse

from config.durations import duration_seconds
from config.settings import Loaded, Settings, load, variable

LOGGING = ("log_format", "log_level")
WORKING = (
    "openai_base_url",
    "max_concurrency",
    "requests_per_minute",
    "request_timeout",
    "lease",
    "batch_size",
    "max_attempts",
    "not_found_grace",
    "halt_timeout",
    "shutdown_grace",
    "log_values",
)


def add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """Let these settings be given as flags, named like them."""
    group = parser.add_argument_group("settings", "each may come from the environment or a file too: metasync settings")
    for name in names:
        field = Settings.model_fields[name]
        help_text = f"{field.description} [{variable(name)}, default {field.default}]".replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(_flag(name), default=None, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            group.add_argument(_flag(name), default=None, metavar=name.rsplit("_", 1)[-1].upper(), help=help_text)


def _flag(name: str) -> str:
    return "--" + name.removeprefix("openai_").replace("_", "-")


def load_settings(arguments: argparse.Namespace) -> Loaded:
    """The settings, with the flags on top.

    Raises:
        ConfigurationError: one of them is bad.
    """
    names = set(Settings.model_fields)
    given = {name: value for name, value in vars(arguments).items() if name in names}
    for name in names:  # flags of the OpenAI settings go without that prefix
        short = name.removeprefix("openai_")
        if short != name and getattr(arguments, short, None) is not None:
            given[name] = getattr(arguments, short)
    return load(given)


def duration(text: str) -> float:
    """A flag's duration, in seconds."""
    try:
        return duration_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
