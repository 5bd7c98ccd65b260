"""What an operator can turn: every setting, its default, its limits and where it may come from."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from config.durations import duration_seconds

PREFIX = "METASYNC_"
SECRETS_DIR = f"{PREFIX}SECRETS_DIR"
DOTENV_FILE = ".env"
TOML_FILE = "metasync.toml"


class ConfigurationError(Exception):
    """A setting is unknown, missing or bad; the message names it and its source, and holds no secret."""


def _https_or_loopback(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as https://api.openai.com/v1")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
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
    )

    openai_api_key: Annotated[SecretStr, AfterValidator(_printable_secret)] | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="the key that requests are made with"
    )
    openai_base_url: Annotated[str, AfterValidator(_https_or_loopback)] = Field(
        "https://api.openai.com/v1",
        validation_alias="OPENAI_BASE_URL",
        description="where the service is; Azure's https://RESOURCE.openai.azure.com/openai/v1 works too",
    )
    openai_org_id: str | None = Field(None, validation_alias="OPENAI_ORG_ID", description="sent as OpenAI-Organization")
    openai_project_id: str | None = Field(
        None, validation_alias="OPENAI_PROJECT_ID", description="sent as OpenAI-Project"
    )
    auth: Literal["auto", "bearer", "api-key"] = Field(
        "auto",
        description="how the key is sent; auto: the api-key header to Azure hosts, else Authorization: Bearer",
    )
    trust_env: bool = Field(default=False, description="go through the proxy that HTTPS_PROXY names")
    queue_url: str = Field("sqlite:///metasync.db", description="where the queue is")
    store_timeout: PositiveSeconds = Field(10.0, description="longest wait for one call to the queue's store")
    mode: Literal["merge", "replace"] = Field("merge", description="the mode of changes that name none")
    max_concurrency: int = Field(64, ge=1, le=10_000, description="most requests in flight at once")
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="most requests a minute, of all workers on the queue together; none: as many as the service takes",
    )
    request_timeout: PositiveSeconds = Field(60.0, description="longest wait for one answer of the service")
    lease: Seconds = Field(300.0, ge=1, description="how long a completion stays claimed by a worker that is gone")
    batch_size: int = Field(256, ge=1, le=10_000, description="most completions claimed, or outcomes stored, at once")
    max_attempts: int = Field(8, ge=1, description="failed attempts after which a change is a dead letter")
    not_found_grace: Seconds = Field(
        900.0,
        ge=0,
        description="how long after enqueue a completion may be missing before its changes are given up",
    )
    halt_timeout: Seconds = Field(
        60.0, ge=0, description="how long a halted drain waits for the cause to go before it ends"
    )
    shutdown_grace: Seconds = Field(25.0, ge=0, description="how long requests in flight may take to finish at the end")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_values: bool = Field(default=False, description="log metadata values too, not only their keys")
    http_host: str = Field("127.0.0.1", min_length=1, description="where a daemon serves its health and metrics")
    http_port: int | None = Field(None, ge=0, le=65_535, description="on which port; none: they are not served")
    http_token: Annotated[SecretStr, AfterValidator(_printable_secret)] | None = Field(
        None, description="what the metrics ask for, as a bearer token; needed where http_host is not loopback"
    )
    secrets_dir: Path | None = Field(
        None, description="a folder of files named like the variables, such as a mounted Kubernetes secret"
    )


def variable(field: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


FIELDS = {variable(field): field for field in Settings.model_fields}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each of them the source that it came from."""

    settings: Settings
    origins: Mapping[str, str]


def load(flags: Mapping[str, Any] | None = None) -> Loaded:
    """Read the settings from flags, the environment, ``.env``, ``metasync.toml`` and the secrets directory.

    The first source that has a setting wins, in that order.

    Args:
        flags: by setting name; None means not given.

    Raises:
        ConfigurationError: a setting is unknown or bad, or a source cannot be read.
    """
    _refuse_unknown_variables(os.environ, "the environment")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    loaded = _read(given, secrets_dir=None)
    if loaded.settings.secrets_dir is not None:
        _check_secrets_dir(loaded.settings.secrets_dir)
        loaded = _read(given, secrets_dir=loaded.settings.secrets_dir)
    return loaded


def _read(flags: Mapping[str, Any], secrets_dir: Path | None) -> Loaded:
    origins: dict[str, str] = {}
    try:
        settings = _reading_class(secrets_dir, origins)(**flags)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, origins)) from None
    except (SettingsError, OSError, ValueError) as error:  # ValueError: TOML or UTF-8 that cannot be decoded
        raise ConfigurationError(f"the settings cannot be read: {error}") from None
    return Loaded(settings, {field: origins.get(field, "default") for field in Settings.model_fields})


def _check_secrets_dir(directory: Path) -> None:
    if not directory.is_dir():
        raise ConfigurationError(f"{SECRETS_DIR}: {directory} is not a directory")
    names = [path.name for path in directory.iterdir() if path.is_file()]
    _refuse_unknown_variables(names, f"the secrets directory {directory}")


def _refuse_unknown_variables(names: Iterable[str], source: str) -> None:
    for name in sorted(names):
        if name.upper().startswith(PREFIX) and name.upper() not in FIELDS:
            raise ConfigurationError(f"{name}, in {source}, is no setting; `metasync settings` lists them all")


def _reading_class(secrets_dir: Path | None, origins: dict[str, str]) -> type[Settings]:
    """`Settings`, bound to these sources; each notes in `origins` what it was the first to supply."""

    class Reading(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- the library passes all five by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- likewise
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources: list[tuple[str, PydanticBaseSettingsSource]] = [
                ("flag", init_settings),
                ("environment", env_settings),
                (DOTENV_FILE, _OwnLines(settings_cls, env_file=DOTENV_FILE)),
                (TOML_FILE, TomlConfigSettingsSource(settings_cls, toml_file=Path(TOML_FILE))),
            ]
            if secrets_dir is not None:
                source = SecretsSettingsSource(settings_cls, secrets_dir=secrets_dir)
                sources.append((f"secret file in {secrets_dir}", source))
            traced = [_traced(label, source, origins) for label, source in sources]
            return cast("tuple[PydanticBaseSettingsSource, ...]", tuple(traced))

    return Reading


class _OwnLines(DotEnvSettingsSource):
    """The lines of ``.env`` that are about us: other programs keep theirs in the same file."""

    def __call__(self) -> dict[str, Any]:
        _refuse_unknown_variables((name for name in self.env_vars), DOTENV_FILE)
        found = super().__call__()
        return {name: value for name, value in found.items() if name in Settings.model_fields or name in FIELDS}


def _traced(label: str, source: PydanticBaseSettingsSource, origins: dict[str, str]) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        found = source()
        for name in found:
            origins.setdefault(FIELDS.get(name.upper(), name), label)
        return found

    return read


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """One sentence per bad setting, without the value: it may be a secret."""
    sentences = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        field = FIELDS.get(name.upper(), name)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "is no setting; `metasync settings` lists them all"
        shown = variable(field) if field in Settings.model_fields else name
        source = f", from {origins[field]}," if field in origins else ""
        sentences.append(f"{shown}{source} {message[:1].lower()}{message[1:]}" if shown else message)
    return "; ".join(sentences)


def masked(settings: Settings, field: str) -> str:
    """The setting's value as it may be shown to anybody."""
    value = getattr(settings, field)
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "***"
    if field == "queue_url":
        return without_password(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_password(url: str) -> str:
    """The URL with its password, if it has one, blotted out, in its authority and in its query."""
    parts = urlsplit(url)
    if parts.password is not None:
        user, _, host = parts.netloc.rpartition("@")
        url = url.replace(parts.netloc, f"{user.split(':', 1)[0]}:***@{host}", 1)
    return re.sub(r"([?&][^=&]*password[^=&]*=)[^&#]*", r"\1***", url, flags=re.IGNORECASE)
