"""What a store raises: each message is one sentence for the person who runs it."""


class QueueError(Exception):
    """The store did not do what was asked.

    Args:
        taken: how many changes of an iterable `put` had stored, or found pending, in the batches before.
    """

    taken: int = 0


class QueueUnavailable(QueueError):
    """The store is away, busy, full or too slow. Nothing was changed; the same call may succeed later."""


class QueueUnwritable(QueueUnavailable):
    """The store takes nothing in: its disk is full, or writing to it fails. Somebody has to see to it."""


class QueueUnusable(QueueUnavailable):
    """What is there cannot be the queue until somebody has seen to it: a password, a right, a schema, a file."""


class QueueMisnamed(QueueError):
    """The settings name what can never be a queue, such as a cluster, or nothing at all: only another setting helps."""


def no_queue(where: object) -> QueueMisnamed:
    """What is said where a queue was to be looked at, and there is none."""
    return QueueMisnamed(
        f"there is no queue at {where}: METASYNC_QUEUE_URL says where it is; "
        "`metasync enqueue` and `metasync migrate` make one"
    )
