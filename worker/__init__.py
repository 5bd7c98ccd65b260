"""metasync: keeps the metadata of stored chat completions in line with a durable queue of pending changes.

Begin with docs/design.md. `changes` says what a change is, `queue` keeps changes, `api` talks to the service, `flow`
says how fast, `engine` puts these together. `sync` only reads, `results` writes what became of each change, `web` and
`cli` are for people, `simulator` is the service on this machine. Imports run downward; `make lint` holds them to it.
"""

TYPE_CHECKING = False  # type checkers know this name; importing typing would double the time of a start

if TYPE_CHECKING:
    from worker.changes import MODES, InvalidChange, MetadataChange, Mode
    from worker.queue import (
        Batch,
        DeadLetter,
        DeadSelection,
        PendingSelection,
        Queue,
        QueuedChange,
        QueueError,
        QueueMisnamed,
        QueueStatus,
        QueueUnavailable,
        QueueUnusable,
        QueueUnwritable,
        Revived,
        Store,
        Stored,
        SyncQueue,
        Withdrawn,
        open_queue,
        open_queue_sync,
    )

# What producers need, with every exception that they may catch; `import metasync` gives the same names.
__all__ = [
    "MODES",
    "Batch",
    "DeadLetter",
    "DeadSelection",
    "InvalidChange",
    "MetadataChange",
    "Mode",
    "PendingSelection",
    "Queue",
    "QueueError",
    "QueueMisnamed",
    "QueueStatus",
    "QueueUnavailable",
    "QueueUnusable",
    "QueueUnwritable",
    "QueuedChange",
    "Revived",
    "Store",
    "Stored",
    "SyncQueue",
    "Withdrawn",
    "open_queue",
    "open_queue_sync",
]


def __getattr__(name: str) -> object:
    """Import a name when it is first used, since `metasync --help` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worker import changes, queue  # noqa: PLC0415 -- see above

    return getattr(changes if hasattr(changes, name) else queue, name)
