"""The schema: whether the server can hold one, whether it is ours to use, and how it comes to be."""

from worker.queue.base import QueueUnusable
from worker.queue.postgres.connections import Connection, Connections
from worker.queue.postgres.statements import migrations, statements

_OLDEST_SERVER = 14
_MIGRATE = statements("migrate")


async def migrate(connections: Connections) -> None:
    """Bring the schema to this version's, and leave it alone where it is.

    Raises:
        QueueUnusable: the server is too old, its database does not hold Unicode, or a newer metasync made the schema.
        QueueUnavailable: the server does not answer.
    """
    await connections.transact(lambda connection: _migrate(connection, connections.address.shown))


async def _migrate(connection: Connection, shown: str) -> None:
    _check_server(connection, shown)
    latest, _ = migrations()[-1]
    if await _version(connection, shown) == latest:
        return
    await connection.execute(_MIGRATE["lock"])
    version = await _version(connection, shown)  # somebody else may have been faster
    for leads_to, sql in migrations():
        if leads_to > version:
            await connection.execute(sql)


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
    """The schema's version, 0 when there is none.

    Raises:
        QueueUnusable: it is newer than this code.
    """
    if not await connection.fetchval(_MIGRATE["made"]):
        return 0
    version: int = await connection.fetchval(_MIGRATE["version"])
    latest, _ = migrations()[-1]
    if version > latest:
        raise QueueUnusable(
            f"{shown} cannot be the queue: a newer metasync made it (schema {version}, this one knows {latest}); "
            "upgrade metasync"
        )
    return version
