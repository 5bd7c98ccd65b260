"""The answer of one call: its verdict, and what the response shows."""

import msgspec

from worker.api.models import ChatCompletion, CompletionPage, Deletion, MessagePage
from worker.api.parsing import parse
from worker.api.verdict import Verdict


class Answer(msgspec.Struct, frozen=True):
    """The answer of one call. Its repr shows nothing of the body, which holds a conversation.

    Args:
        metadata: the completion's metadata; ``{}`` if the response shows it empty or null; None if it does not show it.
        whole: whether `metadata` is all that the response shows. Otherwise values that are not strings were left out,
            and the map must not be sent back as if it were all.
        unread: a success without a body, or with one too large to read: it shows nothing.
        body: of a success; empty otherwise.
        duration_ms: from the call to the last byte, including the wait for a free connection.
    """

    verdict: Verdict
    metadata: dict[str, str] | None = None
    body: bytes = b""
    duration_ms: float = 0.0
    whole: bool = True
    unread: bool = False

    def __repr__(self) -> str:
        return f"<Answer {self.verdict!r} [{len(self.body)} bytes, {self.duration_ms:.0f} ms]>"

    @property
    def completion(self) -> ChatCompletion | None:
        """The completion in an answer to `update` or `get`, parsed at each access; None if there is none."""
        return parse(self.body, ChatCompletion)

    @property
    def page(self) -> CompletionPage | None:
        """The page in an answer to `list`, parsed at each access; None if there is none."""
        return parse(self.body, CompletionPage)

    @property
    def messages(self) -> MessagePage | None:
        """The page in an answer to `messages`, parsed at each access; None if there is none."""
        return parse(self.body, MessagePage)

    @property
    def deletion(self) -> Deletion | None:
        """The deletion in an answer to `delete`, parsed at each access; None if there is none."""
        return parse(self.body, Deletion)
