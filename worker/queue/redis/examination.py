"""Examine a server when the queue is opened: its version, and what it could lose."""

from collections.abc import Iterator, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from worker.queue.redis.address import Address
from worker.queue.redis.errors import IS_CLUSTER, misnamed, unusable

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


async def examine(client: Redis, address: Address) -> tuple[str, ...]:
    """Check the server; return possible losses, one sentence each.

    Raises:
        QueueUnusable: the server is too old.
        QueueMisnamed: it is a node of a cluster.
    """
    # Every user may run HELLO: https://redis.io/docs/latest/commands/hello/
    said = iter(await client.execute_command("HELLO"))  # type: ignore[no-untyped-call]  # the driver's signature
    greeting = dict(zip(said, said, strict=False))
    version = greeting.get(b"version", b"").decode()
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST_MAJOR:
        raise unusable(address, f"it is Redis {version}; 7 or newer, or Valkey, is needed")
    if greeting.get(b"mode") == b"cluster":
        raise misnamed(address, IS_CLUSTER)
    try:
        info: Mapping[str, Any] = await client.info()
    except ResponseError:  # not permitted, or disabled
        return (_UNKNOWN.format(where=address),)
    return tuple(_losses(info, await _appendfsync(client), address))


async def _appendfsync(client: Redis) -> str | None:
    """Return the server's appendfsync; None if it hides its settings, as hosted ones do."""
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
    if policy.startswith("allkeys"):  # others evict only keys with a time to live, and losing ours does no harm
        yield _EVICTS.format(where=where, policy=policy)
