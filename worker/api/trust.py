"""The file of trusted authorities that the environment names. OpenSSL passes over a broken one in silence."""

import os
import ssl
from functools import cache

_VARIABLE = "SSL_CERT_FILE"


def trouble_with_authorities() -> str | None:
    """What is wrong with the file that ``SSL_CERT_FILE`` names; None if nothing is, or it names none."""
    path = os.environ.get(_VARIABLE)
    return _trouble(path) if path else None


@cache  # a process reads the file at its start, and never again
def _trouble(path: str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return f"{_VARIABLE} names {path}, which holds no certificate"
    except OSError as error:
        return f"{_VARIABLE} names {path}, which cannot be read: {error.strerror}"
    return None
