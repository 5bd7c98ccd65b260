"""What a store raises: each message is one sentence for the person who runs it."""


class QueueError(Exception):
    """A call to the store failed.

    Args:
        taken: how many changes of an iterable `put` had stored, or found pending, in earlier batches.
    """

    taken: int = 0


class QueueUnavailable(QueueError):
    """The store is unavailable, busy, full or too slow: the same call may succeed later.

    If only the answer was lost, the call may have been carried out.
    """


class QueueUnwritable(QueueUnavailable):
    """The store cannot be written: its disk is full or fails. A person must fix it."""


class QueueUnusable(QueueUnavailable):
    """The store cannot be used until a person fixes it: a password, a permission, a schema, a file."""


class QueueMisnamed(QueueError):
    """The settings name something that can never be a queue, such as a cluster: only another setting helps."""


def no_queue(where: object) -> QueueMisnamed:
    """Return the error for a missing queue."""
    return QueueMisnamed(
        f"there is no queue at {where}: METASYNC_QUEUE_URL says where it is; "
        "`metasync enqueue` and `metasync migrate` make one"
    )
