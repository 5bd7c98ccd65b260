"""Start the thread of a queue."""

import threading

from worker.queue.errors import QueueUnavailable


def start(thread: threading.Thread) -> None:
    """Start the thread.

    Raises:
        QueueUnavailable: the system starts no further thread. That passes, as other processes end.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise QueueUnavailable(
            f"the queue needs a thread ({error}): a limit of processes or of memory is reached, such as ulimit -u"
        ) from None
