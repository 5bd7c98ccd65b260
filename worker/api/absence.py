"""What a 404 is about: the completion, the URL, or another completion."""

import re

from worker.api.explain import Said
from worker.api.table import is_absence
from worker.api.verdict import About

_ABSENT_COMPLETION = "completion id not found"
_WRONG_URL = "invalid url"
# The id in a message of the service. It needs a digit or a hyphen, so that no word of a sentence looks like an id.
_NAMED = re.compile(
    r"\bcompletion (?:with )?(?:id )?[^\sA-Za-z0-9]?(?=[A-Za-z._]*[0-9-])([A-Za-z0-9][A-Za-z0-9._-]{0,255})\W{0,2} "
    r"(?:was )?not found",
    re.IGNORECASE,
)


def missing(said: Said, body: bytes, asked: str | None) -> About:
    """Decide what a 404 says is missing.

    It is the completion if code and param say so, or if the text names the id that was asked for. Gateways leave out
    one or the other, or wrap the service's text. An id within a path is part of a URL, and proves nothing.
    """
    message = said.error.message or ""
    if is_absence(said.error):
        return "completion"
    if not said.is_json or message.lower().startswith(_WRONG_URL):
        return "url"
    if message.lower().startswith(_ABSENT_COMPLETION) or (
        asked is not None and _names(message or body.decode("utf-8", "replace"), asked)
    ):
        return "completion"
    return "unclear"


def other_than(said: Said, asked: str | None) -> str | None:
    """The id of another completion that the message says is missing; None if it names the one asked for, or no id."""
    message = said.error.message
    if asked is None or message is None or _names(message, asked):
        return None
    named = _NAMED.search(message)
    return named[1] if named else None


def _names(text: str, completion_id: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9._/-]){re.escape(completion_id)}(?![A-Za-z0-9_-])", text) is not None
