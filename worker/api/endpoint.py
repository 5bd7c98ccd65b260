"""Where requests go and how they are authorised: the base URL, the ids and the key, checked before anything is sent."""

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
        path: that of the stored completions, ``/chat/completions`` included.
        query: that every URL ends with; often empty.
    """

    origin: URL
    path: str
    query: str
    host: str
    is_plain: bool

    @classmethod
    def parse(cls, base_url: str) -> Self:
        """Check a base URL such as ``https://api.openai.com/v1``; a query, as Azure's dated form has, is kept.

        Raises:
            ValueError: it is no URL to send a key to; the message does not show it, as it may hold a password.
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
        """What the query holds that is not to be shown: some gateways take a key there."""
        return tuple(value for name, value in parse_qsl(self.query) if name != _API_VERSION)

    def completion_target(self, completion_id: str) -> str:
        """Return what asks for one completion: path and query.

        Raises:
            ValueError: the id is none, and might reach another URL.
        """
        if not COMPLETION_ID.fullmatch(completion_id):
            raise ValueError(f"{completion_id[:80]!a} is not the id of a completion")
        return f"{self.path}/{completion_id}?{self.query}" if self.query else f"{self.path}/{completion_id}"

    def messages_target(self, completion_id: str, parameters: Mapping[str, str]) -> str:
        """Return what asks for one completion's messages; raises as `completion_target` does."""
        self.completion_target(completion_id)
        return self._target(f"/{completion_id}/messages", parameters)

    def list_target(self, parameters: Mapping[str, str]) -> str:
        """Return what asks for all the completions that the parameters mean."""
        return self._target("", parameters)

    def _target(self, below: str, parameters: Mapping[str, str]) -> str:
        query = "&".join(filter(None, (self.query, _quoted(parameters))))
        return f"{self.path}{below}?{query}" if query else self.path + below

    def authorization(self, api_key: str, auth: Auth) -> dict[str, str]:
        """Return the header that carries the key: ``api-key`` for Azure's hosts under ``auto``, else a bearer token.

        Raises:
            ValueError: the key is empty, or no header can carry it; the message does not show it.
        """
        checked = header_value("the API key", api_key)
        if auth == "api-key" or (auth == "auto" and self.host.endswith(_AZURE_HOSTS)):
            return {"api-key": checked}
        return {"Authorization": f"Bearer {checked}"}


def header_value(name: str, value: str) -> str:
    """Return the value if a header can carry it.

    Raises:
        ValueError: it is empty, or holds white space or something other than ASCII; the message does not show it.
    """
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"{name} is empty, or holds white space or characters other than ASCII")
    return value


def _quoted(parameters: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, '')}={quote(value, '')}" for name, value in parameters.items())


def is_loopback(host: str) -> bool:
    """Whether nothing that is sent there leaves this machine, and nothing comes from elsewhere."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
