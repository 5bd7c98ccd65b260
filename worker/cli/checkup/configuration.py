"""Check the settings: whether they can be read, and the sources of those that are not defaults."""

from collections.abc import Callable, Iterator

from config.settings import ConfigurationError, Loaded, Settings, masked, variable
from worker.cli.checkup.check import Check, failure, ok, warning

_NO_KEY = "OPENAI_API_KEY is not set"
_SET_KEY = "put it in the environment, .env, metasync.toml, or a file of that name in METASYNC_SECRETS_DIR"


def read_settings(load: Callable[[], Loaded]) -> tuple[Loaded | None, list[Check]]:
    """Read and check the settings; None if they are invalid."""
    try:
        loaded = load()
    except ConfigurationError as error:
        advice = "fix it and run `metasync doctor` again: nothing else was checked"
        return None, [failure("settings", str(error), advice)]
    return loaded, list(_checks(loaded))


def _checks(loaded: Loaded) -> Iterator[Check]:
    settings, origins = loaded.settings, loaded.origins
    given = [
        f"{variable(field)}={masked(settings, field)} ({origins[field]})"
        for field in Settings.model_fields
        if origins[field] != "default"
    ]
    defaults = len(Settings.model_fields) - len(given)
    yield ok("settings", "; ".join([*given, f"the other {defaults} are defaults"]))
    if loaded.led_astray:
        yield warning("settings", loaded.led_astray, "should the key be sent there?")
    if settings.openai_api_key is None:
        yield failure("key", _NO_KEY, _SET_KEY)
