"""The notes of workers, as functions of a connection."""

from worker.queue.coordination import Note
from worker.queue.postgres.connections import Connection
from worker.queue.statements import read_statements
from worker.queue.text import storable

_NOTE = read_statements(__package__, "note")


async def write(connection: Connection, name: str, text: str | None) -> None:
    """Keep the note, or remove it."""
    if text is None:
        await connection.execute(_NOTE["remove"], storable(name))
    else:
        await connection.execute(_NOTE["write"], storable(name), storable(text))


async def read(connection: Connection, name: str) -> Note | None:
    """Return the note of this name; None if there is none."""
    found = await connection.fetchrow(_NOTE["one"], storable(name))
    return None if found is None else Note.of(found["text"], found["age_seconds"])


async def read_all(connection: Connection) -> dict[str, Note]:
    """Return all notes by name."""
    found = await connection.fetch(_NOTE["all"])
    return {row["name"]: Note.of(row["text"], row["age_seconds"]) for row in found}


async def unix_time(connection: Connection) -> float:
    """Return the server's time, Unix seconds."""
    return float(await connection.fetchval(_NOTE["time"]))
