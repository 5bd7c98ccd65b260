"""The schema: whether the server can have one, whether metasync may use it, and how it is made."""

from worker.queue.errors import QueueUnavailable, QueueUnusable, no_queue
from worker.queue.postgres.connections import Connection, Connections
from worker.queue.statements import read_migrations, read_statements

_OLDEST_SERVER = 14
_SQUATTED = (
    "public.metasync_enqueue is not the queue's own: a producer that calls it runs what its owner, the role {owner!a}, "
    "has written; have producers write metasync.metasync_enqueue, and drop the other"
)
_TAKES_NO_WRITES = (
    "{shown} takes no writes: it is a standby, or set to read only; unless a failover is under way, "
    "METASYNC_QUEUE_URL should name the primary"
)
_MAY_NOT_MAKE = (
    "{shown} cannot be the queue: there is none, and the role may not make one (CREATE on the database); "
    "somebody who may can run `metasync migrate`, and grant the rights"
)
_MIGRATE = read_statements(__package__, "migrate")


def migration_sql() -> str:
    """Return the statements that bring a database's schema from any version to the latest, as one transaction."""
    latest, _ = read_migrations(__package__)[-1]
    steps = [_MIGRATE["step"].format(leads_to=leads_to, sql=sql) for leads_to, sql in read_migrations(__package__)]
    begin = _MIGRATE["begin"].format(latest=latest)
    return "\n".join([begin, *steps, _MIGRATE["end"], ""])


async def migrate(connections: Connections, *, create: bool = True) -> tuple[str, ...]:
    """Bring the schema to the latest version, a transaction for each step; nothing is done if it is.

    Returns:
        warnings, a sentence each.

    Raises:
        QueueMisnamed: there is no schema, and `create` is false.
        QueueUnusable: the server is too old, its database does not hold Unicode, a newer metasync made the schema, or
            there is none and the role may not make one.
        QueueUnavailable: the server does not answer, or a step takes longer than a call may.
    """
    shown = connections.address.shown
    latest, _ = read_migrations(__package__)[-1]
    version = await connections.transact(_checked_version, shown)
    if version == 0 and not create:
        if not await connections.transact(_may_make):
            raise QueueUnusable(_MAY_NOT_MAKE.format(shown=shown))
        raise no_queue(shown)
    while version < latest:
        try:
            version = await connections.transact(_step, shown)
        except QueueUnusable:
            raise
        except QueueUnavailable as error:
            raise QueueUnavailable(
                f"{error}; its schema is {version} of {latest}, and the next step was not finished: "
                "`metasync migrate --store-timeout 1h` gives it more time"
            ) from None
    return await connections.transact(_warnings, shown)


async def _may_make(connection: Connection) -> bool:
    may: bool = await connection.fetchval(_MIGRATE["may_make"])
    return may


async def _warnings(connection: Connection, shown: str) -> tuple[str, ...]:
    found = [_SQUATTED.format(owner=row["owner"]) for row in await connection.fetch(_MIGRATE["squatters"])]
    if await connection.fetchval(_MIGRATE["takes_no_writes"]):
        found.append(_TAKES_NO_WRITES.format(shown=shown))
    return tuple(found)


async def _checked_version(connection: Connection, shown: str) -> int:
    _check_server(connection, shown)
    return await _version(connection, shown)


async def _step(connection: Connection, shown: str) -> int:
    """Make one step; return the version after it."""
    await connection.execute(_MIGRATE["lock"])
    version = await _version(connection, shown)  # another process may have been faster
    for leads_to, sql in read_migrations(__package__):
        if leads_to > version:
            await connection.execute(sql)
            return leads_to
    return version


def _check_server(connection: Connection, shown: str) -> None:
    server = connection.get_server_version()
    if server.major < _OLDEST_SERVER:
        raise QueueUnusable(
            f"{shown} cannot be the queue: the server is PostgreSQL {server.major}, older than {_OLDEST_SERVER}"
        )
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise QueueUnusable(
            f"{shown} cannot be the queue: the database's encoding is {encoding}; make one with ENCODING 'UTF8'"
        )


async def _version(connection: Connection, shown: str) -> int:
    """The schema's version; 0 without a schema.

    Raises:
        QueueUnusable: it is newer than this code.
    """
    if not await connection.fetchval(_MIGRATE["made"]):
        return 0
    version: int = await connection.fetchval(_MIGRATE["version"])
    latest, _ = read_migrations(__package__)[-1]
    if version > latest:
        raise QueueUnusable(
            f"{shown} cannot be the queue: a newer metasync made it (schema {version}, this one knows {latest}); "
            "upgrade metasync"
        )
    return version
