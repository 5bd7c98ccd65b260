"""The URLs and the authorisation of requests. Base URL, ids and key are checked before anything is sent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal, Self
from urllib.parse import parse_qsl, quote

from yarl import URL

from worker.changes.change import COMPLETION_ID

Auth = Literal["auto", "bearer", "api-key"]

_API_VERSION: Final = "api-version"
_AZURE_HOSTS: Final = ".openai.azure.com"
_HEADER_VALUE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The stored completions of one service.

    Args:
        origin: such as ``https://api.openai.com``.
        path: of the stored completions, with ``/chat/completions``.
        query: the end of every URL; often empty.
    """

    origin: URL
    path: str
    query: str
    host: str
    is_plain: bool

    @classmethod
    def parse(cls, base_url: str) -> Self:
        """Check a base URL such as ``https://api.openai.com/v1``. A query, as in Azure's dated form, is kept.

        Raises:
            ValueError: no key may be sent to this URL. The message does not show it, since it may hold a password.
        """
        try:
            url = URL(base_url)
            host, origin = url.host, url.origin()
        except (ValueError, TypeError):
            raise ValueError("the base URL is not a URL such as https://api.openai.com/v1") from None
        if url.scheme not in {"http", "https"} or not host:
            raise ValueError("the base URL must start with https:// and a host")
        if url.raw_user is not None or url.raw_password is not None:
            raise ValueError("the base URL must hold no user or password: the API key has a setting of its own")
        if url.raw_fragment:
            raise ValueError("the base URL must have no fragment (#...)")
        is_plain = url.scheme == "http"
        if is_plain and not is_loopback(host):
            raise ValueError(f"the base URL must start with https://: a key is not sent to {host} over plain http")
        return cls(origin, f"{url.raw_path.rstrip('/')}/chat/completions", url.raw_query_string, host, is_plain)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values of the query that must not be shown: some gateways take a key there."""
        return tuple(value for name, value in parse_qsl(self.query) if name != _API_VERSION)

    def completion_target(self, completion_id: str) -> str:
        """Return the target of one completion: path and query.

        Raises:
            ValueError: the id is invalid, and might reach another URL.
        """
        if not COMPLETION_ID.fullmatch(completion_id):
            raise ValueError(f"{completion_id[:80]!a} is not the id of a completion")
        return f"{self.path}/{completion_id}?{self.query}" if self.query else f"{self.path}/{completion_id}"

    def messages_target(self, completion_id: str, parameters: Mapping[str, str]) -> str:
        """Return the target of one completion's messages; raises as `completion_target` does."""
        self.completion_target(completion_id)
        return self._target(f"/{completion_id}/messages", parameters)

    def list_target(self, parameters: Mapping[str, str]) -> str:
        """Return the target of the list of completions that match the parameters."""
        return self._target("", parameters)

    def _target(self, below: str, parameters: Mapping[str, str]) -> str:
        query = "&".join(filter(None, (self.query, _quoted(parameters))))
        return f"{self.path}{below}?{query}" if query else self.path + below

    def authorization(self, api_key: str, auth: Auth) -> dict[str, str]:
        """Return the header with the key: ``api-key`` for Azure's hosts under ``auto``, otherwise a bearer token.

        Raises:
            ValueError: the key is empty, or no header can carry it. The message does not show it.
        """
        checked = header_value("the API key", api_key)
        if auth == "api-key" or (auth == "auto" and self.host.endswith(_AZURE_HOSTS)):
            return {"api-key": checked}
        return {"Authorization": f"Bearer {checked}"}


def header_value(name: str, value: str) -> str:
    """Return the value if a header can carry it.

    Raises:
        ValueError: it is empty, or holds white space or characters other than ASCII. The message does not show it.
    """
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"{name} is empty, or holds white space or characters other than ASCII")
    return value


def _quoted(parameters: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, '')}={quote(value, '')}" for name, value in parameters.items())


def is_loopback(host: str) -> bool:
    """Whether traffic to this host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
