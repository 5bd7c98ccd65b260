"""Check the way to the service step by step: name, connection, certificate, so that a failure has a place."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.request import getproxies

from config.settings import Settings
from worker.api.endpoint import Endpoint
from worker.api.proxy import environment_proxy
from worker.api.trust import trouble_with_authorities
from worker.cli.checkup.check import Check, failure, ok, warning

_TIMEOUT_SECONDS = 10.0
_FEW_DAYS = 14.0
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class _Peer:
    """The other end of a connection: the service, or the proxy before it."""

    host: str
    port: int
    is_proxy: bool

    @property
    def shown(self) -> str:
        return f"{'the proxy ' if self.is_proxy else ''}{self.host}:{self.port}"


async def check_way(settings: Settings, tls: ssl.SSLContext | None = None) -> AsyncIterator[Check]:
    """Check step by step; a failure leaves out the later steps.

    Args:
        tls: the trusted certificates, if not the system's.
    """
    try:
        endpoint = Endpoint.parse(settings.openai_base_url)
        proxy = environment_proxy(endpoint) if settings.trust_env else None
    except ValueError as error:
        yield failure("name", str(error), "correct OPENAI_BASE_URL", halts=True)
        return
    if proxy is not None and proxy.host:
        peer = _Peer(proxy.host, proxy.port or 80, is_proxy=True)
    else:
        peer = _Peer(endpoint.host, endpoint.origin.port or 443, is_proxy=False)
    addresses, check = await _resolve(peer)
    yield check
    if not addresses:
        return
    is_reached, check = await _connect(peer, addresses)
    yield check
    if not is_reached:
        return
    if endpoint.is_plain:
        yield ok("tls", "none: plain http, which stays on this machine")
    elif peer.is_proxy:
        yield ok("tls", "through the proxy: the key check covers it")
    else:
        yield await _shake_hands(peer, tls or ssl.create_default_context())


async def _resolve(peer: _Peer) -> tuple[list[str], Check]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            found = await loop.getaddrinfo(peer.host, peer.port, type=1)  # SOCK_STREAM
    except TimeoutError:
        return [], failure("name", f"{peer.host} was not resolved within {_TIMEOUT_SECONDS:g} s", _NAME)
    except OSError as error:
        return [], failure("name", f"{peer.host} was not resolved: {error.strerror or error}", _NAME)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if addresses == [peer.host]:
        return addresses, ok("name", f"{peer.host} is an address")
    return addresses, ok("name", f"{peer.host} is {', '.join(addresses)}")


_NAME = "is it spelt correctly in OPENAI_BASE_URL, and does this machine's DNS work?"


async def _connect(peer: _Peer, addresses: list[str]) -> tuple[bool, Check]:
    reached, failed = [], []
    for address in addresses:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                _, writer = await asyncio.open_connection(address, peer.port)
        except TimeoutError:
            failed.append(f"{address}: no connection within {_TIMEOUT_SECONDS:g} s")
        except OSError as error:
            failed.append(f"{address}: {_words(error)}")
        else:
            reached.append(f"{address} in {(time.perf_counter() - started) * 1_000:.0f} ms")
            writer.close()
    if not reached:
        return False, failure("tcp", f"no connection to {peer.shown}: {'; '.join(failed)}", _advice(peer))
    if failed:
        detail = f"{peer.shown}: {'; '.join([*reached, *failed])}"
        return True, warning("tcp", detail, "some of its addresses cannot be reached: is IPv6 half set up?")
    return True, ok("tcp", f"{peer.shown}: {'; '.join(reached)}")


def _advice(peer: _Peer) -> str:
    if not peer.is_proxy and getproxies().get("https"):
        return "HTTPS_PROXY is set: METASYNC_TRUST_ENV=true uses it"
    return "is it running, and does a firewall allow this machine?"


def _words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return error.strerror or type(error).__name__


async def _shake_hands(peer: _Peer, tls: ssl.SSLContext) -> Check:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(peer.host, peer.port, ssl=tls)
    except TimeoutError:
        return failure("tls", f"{peer.shown} did not finish the handshake within {_TIMEOUT_SECONDS:g} s", _TLS)
    except ssl.SSLCertVerificationError as error:
        detail = f"the certificate of {peer.shown} is not trusted: {error.verify_message}"
        return failure("tls", detail, trouble_with_authorities() or _DISTRUST.get(error.verify_code, _UNKNOWN))
    except OSError as error:
        return failure("tls", f"no TLS with {peer.shown}: {getattr(error, 'reason', None) or _words(error)}", _TLS)
    shaken = writer.get_extra_info("ssl_object")
    certificate = shaken.getpeercert()
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / _DAY_SECONDS
    detail = f"{shaken.version()}, the certificate is good for {days:,.0f} days"
    if days < _FEW_DAYS:
        return warning("tls", detail, "the server's operator has to renew it")
    return ok("tls", detail)


# By OpenSSL's number, X509_V_ERR_...
_DISTRUST = {
    9: "does this machine's clock go right? Else the server's operator has to replace it",
    10: "the server's operator has to renew it; or this machine's clock is wrong",
    62: "is the host in OPENAI_BASE_URL right? Else another server, or a gateway, answers in its place",
    64: "is the host in OPENAI_BASE_URL right? Else another server, or a gateway, answers in its place",
}
_UNKNOWN = "if your own gateway answers, set SSL_CERT_FILE to its authority's file"
_TLS = "does another program listen on that port, or intercept the connection?"
