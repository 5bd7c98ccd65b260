"""The record of a change's failures. The queue keeps it with the change, from claim to claim."""

import msgspec

from worker.queue import QueuedChange


class Trials(msgspec.Struct, array_like=True):
    """The record of one change; times are Unix seconds by the store's clock, 0 for never.

    Args:
        failures: all failures. The backoff grows with them.
        counted: failures that count against the change: another completion got through since the failure before.
        first_failed_at, failed_at: the first and the last failure.
        absences: answers that the completion does not exist.
        first_absent_at: the first of these.
        rejected_at: the last rejection.
        unpersisted: successful answers that showed other metadata than wanted.
        throttles: answers 429 since whose predecessor another completion got through.
        throttled_at: the last answer 429.
    """

    failures: int = 0
    counted: int = 0
    first_failed_at: float = 0.0
    failed_at: float = 0.0
    absences: int = 0
    first_absent_at: float = 0.0
    rejected_at: float = 0.0
    unpersisted: int = 0
    throttles: int = 0
    throttled_at: float = 0.0

    def text(self) -> str:
        """The record as text, for the store."""
        return _encode(self).decode()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Trials).decode


def trials_of(change: QueuedChange) -> Trials:
    """The record that is kept with a change; an empty one if there is none, or if another release wrote it."""
    if change.trials is None:
        return Trials()
    try:
        return _decode(change.trials)
    except msgspec.DecodeError:
        return Trials()
