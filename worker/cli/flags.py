"""Settings as flags, with the same names, meanings and checks as in the environment."""

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, get_type_hints

from config.durations import duration_seconds
from config.settings import Loaded, Settings, choices, default_text, flag, is_secret, load, metavar, variable
from worker import flags
from worker.flags import Argument, Flag

STORE = ("queue_url", "store_timeout", "secrets_dir")
LOGGING = ("log_format", "log_level")
SERVING = ("http_host", "http_port")
RECEIVING = ("mode", "intake_max_pending")
WORKING = (
    "openai_base_url",
    "openai_org_id",
    "openai_project_id",
    "auth",
    "trust_env",
    "max_concurrency",
    "requests_per_minute",
    "request_timeout",
    "lease",
    "batch_size",
    "max_attempts",
    "give_up_after",
    "not_found_grace",
    "semantics",
    "read_lag",
    "halt_timeout",
    "shutdown_grace",
    "dead_retention",
    "keep",
    "log_values",
)
# The settings of commands that only read.
READING = (
    "openai_base_url",
    "openai_org_id",
    "openai_project_id",
    "auth",
    "trust_env",
    "max_concurrency",
    "requests_per_minute",
    "request_timeout",
    "halt_timeout",
    "secrets_dir",
)
ALL = tuple(name for name in Settings.model_fields if not is_secret(name))


@dataclass(frozen=True, slots=True)
class Configured:
    """The base of all verbs that use settings.

    Args:
        SETTINGS: the settings that it uses; each is also a flag of the verb.
        given: the settings given as flags, as text, by name.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = STORE

    given: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def load(self) -> Loaded:
        """Load the settings; flags come first.

        Raises:
            ConfigurationError: one of them is invalid.
        """
        return load(self.given)

    def explain(self, error: Exception) -> str:
        """Return the error's text, with settings named as on this command line."""
        message = (
            str(error).replace("the queue URL", variable("queue_url")).replace("the base URL", variable(_BASE_URL))
        )
        for name in self.given:
            message = re.sub(rf"\b{variable(name)}\b", flag(name), message)
        return message


class Prints(NamedTuple):
    """Marks a `--json` flag with the type that it prints, whose schema is published.

    Args:
        beside: the name of another flag that changes what `--json` prints.
    """

    type: Any
    beside: str = ""


_BASE_URL = "openai_base_url"
MAX_DURATION = Flag("end after so long, such as 15m", metavar="DURATION", parse=duration_seconds)


def printed(model: type[Any]) -> list[Prints]:
    """Return what a verb's `--json` prints; empty if it has no such flag."""
    hints = get_type_hints(model, include_extras=True).values()
    notes = (note for hint in hints for note in getattr(hint, "__metadata__", ()))
    return [note for note in notes if isinstance(note, Prints)]


def add_arguments(parser: argparse.ArgumentParser, model: type[Any]) -> None:
    """Add the verb's arguments, and the settings that it uses, to the parser."""
    flags.add_arguments(parser, model, tuple(setting_arguments(model)))


def setting_arguments(model: type[Any]) -> Iterator[Argument]:
    """Yield the settings of a verb as arguments."""
    for name in model.SETTINGS if issubclass(model, Configured) else ():
        default = f", default {default_text(name)}" if default_text(name) else ""
        yield Argument(
            path=("given", name),
            name=flag(name),
            help=f"{Settings.model_fields[name].description} [{variable(name)}{default}]",
            group="settings, each from the environment or a file too",
            metavar=metavar(name),
            choices=choices(name),
            parse=str.lower if choices(name) else None,
            switch="either" if Settings.model_fields[name].annotation is bool else None,
        )
