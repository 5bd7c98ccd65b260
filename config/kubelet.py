"""Variables that the kubelet sets for each Service of the namespace; they may look like our settings."""

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address

# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_URL = re.compile(r"(tcp|udp|sctp)://(?P<host>.+):\d{1,5}")
_NUMBER = re.compile(r"\d{1,5}")
_PROTOCOL = re.compile(r"tcp|udp|sctp")


def _is_address(text: str) -> bool:
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_url(text: str) -> bool:
    found = _URL.fullmatch(text)
    return found is not None and _is_address(found["host"])


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _is_protocol(text: str) -> bool:
    return _PROTOCOL.fullmatch(text) is not None


_FORMS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (re.compile(r"[A-Z0-9_]+_SERVICE_HOST"), _is_address),
    (re.compile(r"[A-Z0-9_]+_SERVICE_PORT(_[A-Z0-9_]+)?"), _is_number),
    (re.compile(r"[A-Z0-9_]+_PORT(_\d{1,5}_(TCP|UDP|SCTP))?"), _is_url),
    (re.compile(r"[A-Z0-9_]+_PORT_\d{1,5}_(TCP|UDP|SCTP)_ADDR"), _is_address),
    (re.compile(r"[A-Z0-9_]+_PORT_\d{1,5}_(TCP|UDP|SCTP)_PORT"), _is_number),
    (re.compile(r"[A-Z0-9_]+_PORT_\d{1,5}_(TCP|UDP|SCTP)_PROTO"), _is_protocol),
)


def service_links(environment: Iterable[tuple[str, str]]) -> set[str]:
    """Return the variables that describe a Service, judged by name and value."""
    return {name for name, value in environment if any(form.fullmatch(name) and holds(value) for form, holds in _FORMS)}
