"""Ports for servers that a test starts on a port of its own choice, or finds nothing at."""

import random
import socket
from contextlib import suppress

# Below those that systems give to outgoing connections, which could take one before its server comes, or comes back.
PORTS = range(10_240, 20_000)


def free_port() -> int:
    """A port of loopback that nothing listens on at this moment."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
