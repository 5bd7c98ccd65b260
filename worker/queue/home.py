"""Where a store may be used: on the event loop that opened it."""

import asyncio


class Home:
    """The running event loop, which is the only one that may use what is made in it.

    A connection used by two loops, or by a forked process too, gives the one what the server answered to the other.
    """

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raise unless this is the running event loop.

        Raises:
            RuntimeError: another one is, in another thread or in a forked process.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "this queue belongs to the event loop that opened it: open another one in each event loop, thread and "
                "forked process, or share one of open_queue_sync among threads"
            )
