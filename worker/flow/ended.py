"""How a request ended, as one value: all that flow control learns from."""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

import msgspec

Operation = Literal["get", "update"]
OPERATIONS: tuple[Operation, ...] = ("get", "update")

# Reasons to halt, besides those that an answer names.
OUTAGE = "outage"
ABSENT = "absent"  # twenty completions in a row are not there: the key may be another project's
REJECTED = "rejected"  # the service takes none of twenty changes in a row
REFUSED = "refused"  # a proxy or firewall answers in the service's place
FOREIGN = "foreign_answers"  # another service answers, or the answer is about another completion
METADATA_HIDDEN = "metadata_hidden"  # reads do not show the metadata, so a merge would delete it
SERVICE_MERGES = "service_merges"  # a replacement does not delete the keys that it leaves out
FAULT = "internal_error"  # each claim meets an exception of ours


class End(StrEnum):
    """How a request ended."""

    SUCCEEDED = "succeeded"  # done, and the answer shows it
    ANSWERED = "answered"  # the answer is about this completion alone and proves nothing for others
    ABSENT = "absent"  # the service has no such completion
    REJECTED = "rejected"  # the service does not take this change
    THROTTLED = "throttled"  # a 429 about the rate
    FAILED = "failed"  # no answer, or one that others may get too: an outage, a bad key, a quota, a wrong URL
    DROPPED = "dropped"  # cancelled: it says nothing about the service


# As nearly all end. In Python 3.11, to find a member of an Enum takes as long as a call.
SUCCESS: Final = End.SUCCEEDED


class Limits(NamedTuple):
    """The ``x-ratelimit-*-requests`` headers of an answer.

    Args:
        limit, remaining: requests; None where the header was missing.
        reset_seconds: until all are there again.
    """

    limit: float | None
    remaining: float | None = None
    reset_seconds: float | None = None


class Ended(msgspec.Struct, frozen=True):
    """The end of one request; its permit says which request it was.

    Args:
        reason: of a failure: ``outage``, or what a person has to mend; of a rejection: its code.
        delay_seconds: how long the service asks to wait; None when it does not say.
        slow_down: the service asks for a lasting decrease of the rate.
        alone: others pass while this completion is throttled, so that the rate is not too high.
        guilty: others got through since this completion failed before, so that no other is at fault.
        limits: what the answer's headers say; None without such headers.
        error, status, request_id: the service's own words, for people.
    """

    end: End
    reason: str = ""
    delay_seconds: float | None = None
    slow_down: bool = False
    alone: bool = False
    guilty: bool = False
    limits: Limits | None = None
    error: str | None = None
    status: int | None = None
    request_id: str | None = None


SUCCEEDED = Ended(End.SUCCEEDED)
ANSWERED = Ended(End.ANSWERED)
FAILED = Ended(End.FAILED, reason=OUTAGE)
DROPPED = Ended(End.DROPPED)
