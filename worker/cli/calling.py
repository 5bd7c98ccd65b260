"""The service's client for commands: built from settings; it reads the key again when its source changes."""

import gc

import structlog

from config import logs
from config.settings import ConfigurationError, Settings, file_times
from worker.api import Client
from worker.cli.job import Job, key_of
from worker.cli.tracing import Tracing
from worker.engine import ReadKey


def collect_less() -> None:
    """Make the garbage collector run less often, and ignore imported modules.

    An update leaves hardly any cycles, yet collection at the default rate takes 7 % of the time. Measured: peak memory
    does not change.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


def client_of(settings: Settings, traced: Tracing) -> Client:
    """Build the service's client.

    Raises:
        ConfigurationError: the base URL, the key or another header value is invalid.
    """
    try:
        return traced.make_client(
            base_url=settings.openai_base_url,
            api_key=key_of(settings),
            organization=settings.openai_org_id,
            project=settings.openai_project_id,
            auth=settings.auth,
            max_connections=settings.max_concurrency,
            trust_env=settings.trust_env,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def key_reader(client: Client, job: Job) -> ReadKey:
    """Return a function that reads the key again if the settings' files have changed."""
    current, seen = key_of(job.settings), file_times(job.settings)

    async def read_key(always: bool) -> bool:  # noqa: FBT001 -- as `ReadKey` says
        nonlocal current, seen
        found = file_times(job.settings)
        if found == seen and not always:
            return False
        seen = found
        try:
            loaded = await job.reloaded()
            key = key_of(loaded.settings)
            logs.conceal(key)
            if key != current and loaded.led_astray not in (None, job.warning):
                structlog.get_logger().warning("settings.key_led_astray", error=loaded.led_astray)
            client.use_key(key)
        except (ConfigurationError, ValueError) as error:  # ValueError: the key cannot be a header value
            structlog.get_logger().warning("settings.unreadable", error=str(error))
            return False
        is_new, current = key != current, key
        return is_new

    return read_key
