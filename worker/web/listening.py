"""The socket that the web surface listens on."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from worker.web.connections import Connections

_ALL = "::"  # every address of this machine, those of IPv4 too; asyncio would leave them out
_BACKLOG = 1024  # connections waiting while the loop is busy; beyond it, a client retries after a second


class Unservable(Exception):
    """The web server cannot start; the message says why, and what to do."""


@asynccontextmanager
async def listening(connections: Connections, server: web.Server, host: str, port: int) -> AsyncIterator[int]:
    """Listen; yields the port.

    Args:
        port: 0 for any free one.

    Raises:
        Unservable: the address cannot be used.
    """
    open_connection = partial(connections.open, server)
    try:
        if host == _ALL and socket.has_dualstack_ipv6():
            both = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
            listener = await asyncio.get_running_loop().create_server(open_connection, sock=both, backlog=_BACKLOG)
        else:
            listener = await asyncio.get_running_loop().create_server(open_connection, host, port, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unservable(f"cannot listen on METASYNC_HTTP_HOST {host}, port {port}: {reason}") from None
    try:
        yield int(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
