"""Every setting, with its default, its limits and its sources."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args, get_origin
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from config.durations import duration_seconds, duration_text
from config.kubelet import service_links
from config.urls import shown_url, url_secrets
from worker.spellings import MASK

PREFIX = "METASYNC_"
SECRETS_DIR = f"{PREFIX}SECRETS_DIR"
DOTENV_FILE = ".env"
TOML_FILE = "metasync.toml"
_FROM_SECRETS = "secret file in"
_SHORTEST_RETENTION_SECONDS = 3_600.0


class ConfigurationError(Exception):
    """A setting is unknown, missing or invalid; the message names it and its source, and contains no secret."""


def _https_or_loopback(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its message could show a password
        raise ValueError("must be a URL such as https://api.openai.com/v1") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be a URL such as https://api.openai.com/v1")
    if parts.username or parts.password:
        raise ValueError("must not contain a user or password")
    if "#" in url:
        raise ValueError("must have no fragment (#...)")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("must be https: over plain http the key would be readable on the way (loopback excepted)")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _printable_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII characters")
    return SecretStr(text)


def _printable_secrets(secrets: SecretStr) -> SecretStr:
    for part in secrets.get_secret_value().split(","):
        _printable_secret(SecretStr(part))
    return secrets


def tokens_of(secrets: SecretStr) -> tuple[str, ...]:
    """Split a setting with several tokens at its commas."""
    return tuple(part.strip() for part in secrets.get_secret_value().split(","))


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _days_not_seconds(seconds: float) -> float:
    """Refuse a short retention: deletion is final, and a bare number means seconds, not days."""
    if seconds < _SHORTEST_RETENTION_SECONDS:
        raise ValueError("must be an hour or more, such as 30d: a number alone is seconds")
    return seconds


def _nothing_or_days(seconds: float) -> float:
    return _days_not_seconds(seconds) if seconds else 0.0


AnyCase = BeforeValidator(_lower)
Seconds = Annotated[float, BeforeValidator(duration_seconds)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]


class Settings(BaseSettings):
    """The effective settings, validated. Durations are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        validate_default=False,
        hide_input_in_errors=True,
        defer_build=True,
    )

    openai_api_key: Annotated[SecretStr, AfterValidator(_printable_secret)] | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="the API key"
    )
    openai_base_url: Annotated[str, AfterValidator(_https_or_loopback)] = Field(
        "https://api.openai.com/v1",
        validation_alias="OPENAI_BASE_URL",
        description="the URL of the service; Azure's https://RESOURCE.openai.azure.com/openai/v1 works too",
    )
    openai_org_id: str | None = Field(None, validation_alias="OPENAI_ORG_ID", description="sent as OpenAI-Organization")
    openai_project_id: str | None = Field(
        None, validation_alias="OPENAI_PROJECT_ID", description="sent as OpenAI-Project"
    )
    auth: Annotated[Literal["auto", "bearer", "api-key"], AnyCase] = Field(
        "auto",
        description="how the key is sent; auto: the api-key header to Azure hosts, else Authorization: Bearer",
    )
    trust_env: bool = Field(default=False, description="use the proxy that HTTPS_PROXY names")
    queue_url: Annotated[str, AfterValidator(str.strip)] = Field(
        "sqlite:///metasync.db", description="the URL of the queue"
    )
    store_timeout: PositiveSeconds = Field(10.0, description="longest wait for a call to the queue's store")
    mode: Annotated[Literal["merge", "replace"], AnyCase] = Field(
        "merge", description="the mode of a change that names none"
    )
    max_concurrency: int = Field(64, ge=1, le=10_000, description="most requests in flight at once")
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="most requests a minute, by all workers on the queue together; none: as many as the service takes",
    )
    request_timeout: PositiveSeconds = Field(60.0, description="longest wait for an answer of the service")
    lease: Seconds = Field(
        300.0, ge=1, le=3_600, description="how long a worker that died keeps its completions claimed"
    )
    batch_size: int = Field(
        256, ge=1, le=10_000, description="most completions claimed, or outcomes stored (256 at most), at once"
    )
    max_attempts: int = Field(
        8, ge=1, description="a change is a dead letter after so many failures while others got through"
    )
    give_up_after: Seconds = Field(
        21_600.0, ge=0, description="a change is a dead letter only if it has failed for at least so long"
    )
    not_found_grace: Seconds | None = Field(
        None,
        ge=0,
        description="how long a completion may be missing before its changes are given up, from the enqueue or the "
        "first 404, whichever is later; none: 2m for a drain, 15m for a daemon",
    )
    semantics: Annotated[Literal["unknown", "merge", "replace"], AnyCase] = Field(
        "unknown",
        description="what the service does with keys that an update does not name, if you know: it keeps them (merge) "
        "or drops them (replace)",
    )
    read_lag: Seconds = Field(60.0, ge=0, description="how long the service may show the old metadata after an update")
    dead_retention: Annotated[Seconds, AfterValidator(_days_not_seconds)] | None = Field(
        None, description="workers delete dead letters that are older, such as 30d; none: they keep all"
    )
    keep: Annotated[Seconds, Field(ge=0), AfterValidator(_nothing_or_days)] = Field(
        604_800.0,
        description="how long applied change_ids, the newest as_of of each completion and finished batches are "
        "remembered; 0: batches for an hour, else nothing",
    )
    halt_timeout: Seconds = Field(60.0, ge=0, description="a drain ends when nothing got through for so long")
    shutdown_grace: Seconds = Field(25.0, ge=0, description="how long a worker that stops waits for requests in flight")
    log_format: Annotated[Literal["auto", "json", "console"], AnyCase] = Field(
        "auto", description="auto: console on a terminal, else json"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = Field(
        "info", description="the lowest level that is logged"
    )
    log_values: bool = Field(default=False, description="log metadata values too, not only their keys")
    http_host: str = Field(
        "127.0.0.1", min_length=1, description="the address that a daemon serves health, metrics and its page on"
    )
    http_port: int | None = Field(None, ge=0, le=65_535, description="the port for these; none: they are not served")
    http_token: Annotated[SecretStr, AfterValidator(_printable_secret)] | None = Field(
        None, description="the bearer token for metrics and page; needed unless http_host is loopback"
    )
    intake_token: Annotated[SecretStr, AfterValidator(_printable_secrets)] | None = Field(
        None,
        description="the bearer token with which producers send changes over HTTP; to replace one, set both with a "
        "comma between them; none: changes are not taken over HTTP",
    )
    intake_max_pending: int = Field(
        1_000_000, ge=1, description="changes are not taken over HTTP while so many are pending"
    )
    secrets_dir: Path | None = Field(
        None, description="a folder of files named like the variables, such as a mounted Kubernetes secret"
    )


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def file_times(settings: "Settings") -> tuple[int, ...]:
    """Return when the sources' files were last changed, in ns; 0 for a missing one."""
    paths = [Path(DOTENV_FILE), Path(TOML_FILE)]
    if settings.secrets_dir is not None:
        paths += [settings.secrets_dir / variable(field) for field in ("openai_api_key", "queue_url")]
    return tuple(_changed_at(path) for path in paths)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns  # follow links: Kubernetes renews a mounted secret by moving a link
    except OSError:
        return 0


def flag(field: str) -> str:
    """Return the flag of a setting, for the verbs that use it."""
    return "--" + field.removeprefix("openai_").replace("_", "-")


def is_secret(field: str) -> bool:
    """Whether the setting is secret, and has no flag: all users of a machine can read a command's arguments."""
    return SecretStr in _types(Settings.model_fields[field].annotation)


def choices(field: str) -> tuple[str, ...]:
    """Return the allowed values of a setting; empty if any value may be valid."""
    annotation = Settings.model_fields[field].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def default_text(field: str) -> str:
    """Format the default of a setting; empty if there is none."""
    return _text(field, Settings.model_fields[field].default)


def metavar(field: str) -> str:
    """Return the value's placeholder in help; empty if help lists the choices."""
    if choices(field):
        return ""
    if _is_duration(field):
        return "DURATION"
    kinds = _types(Settings.model_fields[field].annotation)
    return "N" if kinds & {int, float} and field != "http_port" else field.rsplit("_", 1)[-1].upper()


def _types(annotation: object) -> set[object]:
    """Return the plain types in an annotation."""
    return {annotation}.union(*(_types(part) for part in get_args(annotation)))


def _is_duration(field: str) -> bool:
    # For `Seconds | None`, the validator is still in the annotation itself.
    info = Settings.model_fields[field]
    notes = [
        *info.metadata,
        *(note for part in get_args(info.annotation) for note in getattr(part, "__metadata__", ())),
    ]
    return any(isinstance(note, BeforeValidator) and note.func is duration_seconds for note in notes)


def _text(field: str, value: Any) -> str:  # noqa: ANN401 -- settings have any type
    if value is None:
        return ""
    if _is_duration(field):
        return duration_text(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


FIELDS = {variable(field): field for field in Settings.model_fields}


class Loaded(NamedTuple):
    """The settings, and the source of each."""

    settings: Settings
    origins: Mapping[str, str]

    @property
    def led_astray(self) -> str | None:
        """Return a warning if the working directory decides where the user's own key is sent."""
        if not self._is_of_folder("openai_base_url") or self._is_of_folder("openai_api_key"):
            return None
        if self.settings.openai_api_key is None:
            return None
        url, key = self.origins["openai_base_url"], self.origins["openai_api_key"]
        return f"OPENAI_BASE_URL, from {url}, has the key from {key} sent to {shown_url(self.settings.openai_base_url)}"

    def _is_of_folder(self, field: str) -> bool:
        """Whether the setting comes from the working directory, or from a place that a file there names."""
        origin = self.origins[field]
        if origin.startswith(_FROM_SECRETS):
            origin = self.origins["secrets_dir"]
        return origin in (DOTENV_FILE, TOML_FILE)


def load(flags: Mapping[str, Any] | None = None) -> Loaded:
    """Read the settings from flags, the environment, ``.env``, ``metasync.toml`` and the secrets directory.

    In this order, the first source that has a setting wins.

    Args:
        flags: by setting name; None means not given.

    Raises:
        ConfigurationError: a setting is unknown or invalid, or a source cannot be read.
    """
    _refuse_unknown_variables(os.environ.keys() - service_links(os.environ.items()), "the environment")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    loaded = _read(given, secrets_dir=None)
    if loaded.settings.secrets_dir is not None:
        name = flag("secrets_dir") if loaded.origins["secrets_dir"] == "flag" else SECRETS_DIR
        _check_secrets_dir(loaded.settings.secrets_dir, name)
        loaded = _read(given, secrets_dir=loaded.settings.secrets_dir)
    return loaded


def _read(flags: Mapping[str, Any], secrets_dir: Path | None) -> Loaded:
    origins: dict[str, str] = {}
    if Path(TOML_FILE).is_dir():  # Docker creates a directory for a missing file that is mounted
        raise ConfigurationError(f"{TOML_FILE} cannot be read: it is a directory")
    try:
        settings = _reading_class(secrets_dir, origins)(**flags)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, origins)) from None
    return Loaded(settings, {field: origins.get(field, "default") for field in Settings.model_fields})


def _check_secrets_dir(directory: Path, name: str) -> None:
    try:
        if not directory.is_dir():
            raise ConfigurationError(f"{name}: {directory} is not a directory")
        paths = list(directory.iterdir())
        names = [path.name for path in paths if path.is_file()]
    except OSError as error:
        raise ConfigurationError(f"{name}: {directory} cannot be read: {error.strerror}") from None
    for path in paths:
        if path.name.upper() in FIELDS and path.name not in names:
            raise ConfigurationError(f"{path.name}, in the secrets directory {directory}, is not a file")
    _refuse_unknown_variables(names, f"the secrets directory {directory}")


def _refuse_unknown_variables(names: Iterable[str], source: str) -> None:
    for name in sorted(names):
        if name.upper().startswith(PREFIX) and name.upper() not in FIELDS:
            raise ConfigurationError(f"{name}, in {source}, {_no_setting(name.upper(), FIELDS)}")


def _no_setting(name: str, known: Iterable[str]) -> str:
    if name.upper() in FIELDS:
        return f"is no setting: did you mean {FIELDS[name.upper()]}?"  # without the prefix
    hint = "".join(f": did you mean {near}?" for near in get_close_matches(name, known, n=1))
    return f"is no setting{hint or '; `metasync settings` lists them all'}"


def _reading_class(secrets_dir: Path | None, origins: dict[str, str]) -> type[Settings]:
    """Return `Settings` bound to these sources; `origins` receives the source of each value."""

    class Reading(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the library passes all five by name
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- as above
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- as above
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources: list[tuple[str, Callable[[], PydanticBaseSettingsSource]]] = [
                ("flag", lambda: init_settings),
                ("environment", lambda: _OwnVariables(settings_cls)),
                (DOTENV_FILE, lambda: _OwnLines(settings_cls, env_file=DOTENV_FILE)),
                (TOML_FILE, lambda: TomlConfigSettingsSource(settings_cls, toml_file=Path(TOML_FILE))),
            ]
            if secrets_dir is not None:
                label = f"{_FROM_SECRETS} {secrets_dir}"
                sources.append((label, lambda: SecretsSettingsSource(settings_cls, secrets_dir=secrets_dir)))
            traced = [_traced(label, source, origins) for label, source in sources]
            return cast("tuple[PydanticBaseSettingsSource, ...]", tuple(traced))

    return Reading


class _OwnVariables(EnvSettingsSource):
    """The environment without the kubelet's variables: for a Service `metasync-http` it sets METASYNC_HTTP_PORT."""

    def __call__(self) -> dict[str, Any]:
        others = {name.lower() for name in service_links(os.environ.items())}
        self.env_vars = {name: value for name, value in self.env_vars.items() if name.lower() not in others}
        return super().__call__()


class _OwnLines(DotEnvSettingsSource):
    """Our own lines of ``.env``, which other programs share."""

    def __call__(self) -> dict[str, Any]:
        _refuse_broken_lines(Path(DOTENV_FILE))
        _refuse_unknown_variables((name.upper() for name in self.env_vars), DOTENV_FILE)  # it lowers them
        found = super().__call__()
        return {name: value for name, value in found.items() if name in Settings.model_fields or name in FIELDS}


def _refuse_broken_lines(dotenv: Path) -> None:
    """Refuse malformed lines of ours: the library skips them, with a warning that names no file."""
    logging.getLogger("dotenv").setLevel(logging.ERROR)
    if not dotenv.is_file():
        return
    with dotenv.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error and _OURS.search(binding.original.string):
                raise ValueError(f"not NAME=VALUE, or an unclosed quote (at line {binding.original.line})")


_OURS = re.compile("METASYNC_|OPENAI_", re.IGNORECASE)


def _traced(
    label: str, source: Callable[[], PydanticBaseSettingsSource], origins: dict[str, str]
) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        try:
            found = source()()
        # ValueError: TOML or UTF-8 that cannot be decoded; RecursionError: nested too deeply.
        except (SettingsError, OSError, ValueError, RecursionError) as error:
            cause = f": {error.__cause__}" if error.__cause__ else ""
            raise ConfigurationError(f"{label} cannot be read: {error}{cause}") from None
        for name in found:
            origins.setdefault(FIELDS.get(name.upper(), name), label)
        return found

    return read


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Return one sentence per invalid setting, without its value, which may be secret."""
    sentences = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        field = FIELDS.get(name.upper(), name)
        message = _LIBRARYS_SUBJECT.sub("must", problem["msg"].removeprefix("Value error, "))
        if problem["type"] == "extra_forbidden":
            message = _no_setting(name, [*Settings.model_fields, *FIELDS])
        shown = variable(field) if field in Settings.model_fields else name
        source = f", from {origins[field]}," if field in origins else ""
        if origins.get(field) == "flag":
            shown, source = flag(field), ""
        sentences.append(f"{shown}{source} {message[:1].lower()}{message[1:]}" if shown else message)
    return "; ".join(sentences)


_LIBRARYS_SUBJECT = re.compile(r"^(Input|String) should")  # the setting itself is ours


def masked(settings: Settings, field: str) -> str:
    """Return the setting's value without secrets."""
    value = getattr(settings, field)
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    return shown_url(value) if field in _URLS else _text(field, value)


def place_of(queue_url: str) -> str:
    """Return the queue's URL for messages: without a password, and with a file's whole path."""
    scheme, is_file, path = queue_url.partition("sqlite:///")
    return f"{is_file}{Path(path).absolute()}" if is_file and not scheme else shown_url(queue_url)


_URLS = ("queue_url", "openai_base_url")


def secrets_of(settings: Settings) -> list[str]:
    """Return the values that must not appear in a log line."""
    keys = [one.get_secret_value() for one in (settings.openai_api_key, settings.http_token) if one is not None]
    tokens = tokens_of(settings.intake_token) if settings.intake_token is not None else ()
    return [*keys, *tokens, *(secret for field in _URLS for secret in url_secrets(getattr(settings, field)))]
