"""What was met when a change was tried before, as far as it was not done: kept with the change, from claim to claim."""

import msgspec

from worker.queue import QueuedChange


class Trials(msgspec.Struct, array_like=True):
    """The record of one change; times are Unix seconds by the store's clock, 0 for never.

    Args:
        failures: all of them, by which the backoff grows.
        counted: those after which other completions got through before it failed again. Only these speak against it.
        first_failed_at, failed_at: the first and the last failure.
        absences: answers that there is no such completion.
        first_absent_at: the first of these.
        rejected_at: the last rejection that may have been somebody else's fault.
        unpersisted: answers that said done, and showed something else.
        throttles: answers 429 before each of which other completions had got through since the one before it.
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
        """What the store keeps."""
        return _encode(self).decode()


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Trials).decode


def trials_of(change: QueuedChange) -> Trials:
    """The record that came with a change; an empty one where there is none, or none of this release's."""
    if change.trials is None:
        return Trials()
    try:
        return _decode(change.trials)
    except msgspec.DecodeError:
        return Trials()
