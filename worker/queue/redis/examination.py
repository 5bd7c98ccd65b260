"""What a server is, and what it would lose: looked at when the queue is opened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from worker.queue.redis.address import Address
from worker.queue.redis.errors import unusable

# The first version with function libraries, https://redis.io/docs/latest/develop/programmability/functions-intro/
_OLDEST_MAJOR = 7

_NO_APPEND_ONLY_FILE = (
    "{where} keeps no append-only file: a crash, and on many set-ups a restart, loses every change since its last "
    "snapshot, or all of them; set appendonly yes"
)
_NEVER_FLUSHED = (
    "{where} leaves it to its operating system when the append-only file reaches the disk (appendfsync no): a crash "
    "of the machine can lose half a minute of changes; set appendfsync everysec or always"
)
_EVICTS = (
    "{where} throws keys away, pending changes among them, when its memory is used up (maxmemory-policy {policy}); "
    "set maxmemory-policy noeviction"
)
_UNKNOWN = "{where} does not say how it persists: without an append-only file, a restart can lose every change"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a server says about itself.

    Args:
        warnings: what can be lost, one sentence each.
    """

    is_cluster: bool
    warnings: tuple[str, ...]


async def examine(client: Redis, address: Address) -> Findings:
    """Ask the server what it is.

    Raises:
        QueueUnusable: it is too old.
    """
    try:
        info: Mapping[str, Any] = await client.info()
    except NoPermissionError:  # then its first function call tells whether it can serve
        return Findings(is_cluster=False, warnings=(_UNKNOWN.format(where=address),))
    version = str(info.get("redis_version", ""))
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST_MAJOR:
        raise unusable(address, f"it is Redis {version}; 7 or newer, or Valkey, is needed")
    mode = info.get("redis_mode") or info.get("server_mode")  # Redis and Valkey call it differently
    flushed = await _appendfsync(client)
    return Findings(mode == "cluster", tuple(_losses(info, flushed, address)))


async def _appendfsync(client: Redis) -> str | None:
    """When the append-only file is flushed; None where the server keeps its settings to itself, as hosted ones do."""
    try:
        return (await client.config_get("appendfsync")).get("appendfsync")
    except ResponseError:
        return None


def _losses(info: Mapping[str, Any], appendfsync: str | None, where: Address) -> Iterator[str]:
    if "aof_enabled" not in info:
        yield _UNKNOWN.format(where=where)
    elif not info["aof_enabled"]:
        yield _NO_APPEND_ONLY_FILE.format(where=where)
    elif appendfsync == "no":
        yield _NEVER_FLUSHED.format(where=where)
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys"):  # the others take keys with a time to live, of which losing ours costs nothing
        yield _EVICTS.format(where=where, policy=policy)
