"""What became of a request, as one value: all that flow control learns from."""

from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

Operation = Literal["get", "update"]
OPERATIONS: tuple[Operation, ...] = ("get", "update")

# Reasons for which work halts, besides those that an answer names.
OUTAGE = "outage"
ABSENT = "absent"  # twenty completions in a row are not there: the key of another project?
REJECTED = "rejected"  # twenty completions in a row are refused
REFUSED = "refused"  # something between us and the service answers in its place
FOREIGN = "foreign_answers"  # what answers is not this service, or about other completions than were asked for
METADATA_HIDDEN = "metadata_hidden"  # reads do not show the metadata, so that a merge would wipe it
SERVICE_MERGES = "service_merges"  # what a replacement leaves out stays
FAULT = "internal_error"  # every claim runs into an exception of ours


class End(StrEnum):
    """How a request ended, as far as flow control is concerned."""

    SUCCEEDED = "succeeded"  # done, and the answer shows it
    ANSWERED = "answered"  # an answer about this completion alone, which proves nothing for others
    ABSENT = "absent"  # the service has no such completion
    REJECTED = "rejected"  # the service does not take this change
    THROTTLED = "throttled"  # a 429 about the rate
    FAILED = "failed"  # no answer, or one that may concern everybody: an outage, a bad key, a quota, a wrong URL
    DROPPED = "dropped"  # cancelled: no word about the service


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
    """The end of one request; the permit knows which request it was.

    Args:
        reason: of what failed: ``outage``, or what somebody has to mend; of a rejection, its code.
        delay_seconds: what the service asked to wait; None when it did not say.
        slow_down: it asked for a lasting decrease of the rate.
        alone: of a throttled completion, that others pass meanwhile: it says nothing about the rate of all.
        guilty: of a failed completion, that others got through since it failed before: it says nothing about all.
        limits: what the answer's headers say, where there were any.
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
