"""Mask secrets in URLs; show nothing but the scheme of a URL that does not parse."""

import re
from urllib.parse import unquote

from worker.spellings import MASK

# Strict on purpose: a password may contain unescaped delimiters, and a lenient parser would then take a part of it for
# a harmless part of the URL. The patterns are compiled when they are first used, since most commands show no URL.
_WORD = r"[A-Za-z0-9._~%!$&'()*+;=-]*"
_HOST = r"(?:[A-Za-z0-9._~%-]*|\[[0-9A-Fa-f:.%]+\])(?::[0-9]{0,5})?"
_URL = (
    r"(?P<scheme>https?|postgres(?:ql)?|rediss?)://"
    rf"(?:(?P<user>{_WORD})(?P<password>:[^\s/?#@\[\]\x7f-\U0010ffff]*)?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?P<path>/[^\s?#@\[\]]*)?"
    r"(?:\?(?P<query>[^\s#@\[\]]*))?"
)
_FILE = r"(?s:(?P<path>memory:|sqlite:///[^?]*)(?:\?(?P<query>.*))?)"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_MERE_WORD = r"[A-Za-z_]*"
_HARMLESS = frozenset({"api-version", "application_name", "listen", "prefix", "sslmode", "ssl_ca_certs", "sslrootcert"})


def shown_url(url: str) -> str:
    """Return the URL with password and query values masked; the scheme alone if it does not parse."""
    if match := re.fullmatch(_FILE, url):
        return f"{match['path']}{_shown_query(match['query'])}"
    if match := re.fullmatch(_URL, url):
        login = _shown_login(match["scheme"], match["user"], match["password"])
        return f"{match['scheme']}://{login}{match['hosts']}{match['path'] or ''}{_shown_query(match['query'])}"
    scheme = re.match(_SCHEME, url)
    return f"{scheme[0] if scheme else ''}{MASK}"


def url_secrets(url: str) -> list[str]:
    """Return what `shown_url` masks, quoted and unquoted, so that it can be masked in any text.

    A password that is a plain word is left out: the word occurs elsewhere, such as in the queue's name.
    """
    if re.fullmatch(_FILE, url):
        return []
    match = re.fullmatch(_URL, url)
    if match is None:
        return [url]
    found = [(match["password"] or ":").removeprefix(":")]
    found += [value if equals else name for name, equals, value in _pairs(match["query"]) if name not in _HARMLESS]
    return [text for one in found if not re.fullmatch(_MERE_WORD, one) for text in dict.fromkeys((one, unquote(one)))]


def _shown_login(scheme: str, user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    if password is not None:
        return f"{user}:{MASK}@"
    return f"{user}@" if scheme.startswith("postgres") else f"{MASK}@"  # elsewhere a lone user name is the secret


def _shown_query(query: str | None) -> str:
    if query is None:
        return ""
    pairs = (
        f"{name}={value if name in _HARMLESS else MASK}" if equals else MASK for name, equals, value in _pairs(query)
    )
    return f"?{'&'.join(pairs)}"


def _pairs(query: str | None) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in (query or "").split("&")]
