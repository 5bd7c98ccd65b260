"""The end of one call: its verdict, and what the service answered."""

import msgspec

from worker.api.models import ChatCompletion, CompletionPage, Deletion, MessagePage
from worker.api.parsing import parse
from worker.api.verdict import Verdict


class Answer(msgspec.Struct, frozen=True):
    """What came of one call. Its repr shows nothing of the body, which holds a conversation.

    Args:
        metadata: the completion's, as the answer shows it: ``{}`` when it is empty or null; None when it is unknown,
            as the answer does not show it.
        whole: all of the metadata that the answer shows is in `metadata`. Else it held what is no string, and must not
            be sent back as if it were all.
        unread: a success without a body, or with one too large to read: done, and nothing was shown.
        body: of a success; empty otherwise.
        duration_ms: from the call to the last byte, the wait for a free connection included.
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
        """The body of an answer to update or get, parsed at each look; None when there is none."""
        return parse(self.body, ChatCompletion)

    @property
    def page(self) -> CompletionPage | None:
        """Likewise, of an answer to list."""
        return parse(self.body, CompletionPage)

    @property
    def messages(self) -> MessagePage | None:
        """Likewise, of an answer to messages."""
        return parse(self.body, MessagePage)

    @property
    def deletion(self) -> Deletion | None:
        """Likewise, of an answer to delete."""
        return parse(self.body, Deletion)
