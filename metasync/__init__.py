"""What producers import: `from metasync import open_queue`. The command and the worker are in `worker` and `config`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker import (
        MODES,
        Batch,
        DeadLetter,
        DeadSelection,
        InvalidChange,
        MetadataChange,
        Mode,
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
    """Import a name when it is first used: the command starts here, too.

    Raises:
        ImportError: another project's `worker` is found instead of ours.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metasync.place import check_ours  # noqa: PLC0415 -- see above

    check_ours("worker")
    import worker  # noqa: PLC0415 -- likewise

    return getattr(worker, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
