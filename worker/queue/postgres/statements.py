"""The SQL, which lies in files beside this one: named statements, and the numbered migrations."""

from collections.abc import Mapping

from worker.queue.statements import read_migrations, read_statements


def statements(name: str) -> Mapping[str, str]:
    """Give the statements of ``NAME.sql`` by their names."""
    return read_statements(__package__, name)


def migrations() -> tuple[tuple[int, str], ...]:
    """Give every migration as (schema version that it leads to, SQL), oldest first."""
    return read_migrations(__package__)


def migration_sql() -> str:
    """Give the statements that make a queue in an empty database, as one transaction."""
    lock = statements("migrate")["lock"]
    return "\n".join([f"BEGIN;\n\n{lock}\n", *(sql for _, sql in migrations()), "COMMIT;\n"])
