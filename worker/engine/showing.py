"""What an answer shows: of an update, held against what was wanted."""

from collections.abc import Iterable, Mapping

import msgspec

from worker.api import Answer
from worker.changes import MetadataChange
from worker.engine.blame import Semantics
from worker.flow import METADATA_HIDDEN, SERVICE_MERGES, SUCCEEDED, End, Ended

HIDDEN = "the service does not show the completion's metadata: a merge would wipe what is there"
NOT_AS_WANTED = "the service answered 200, but does not have it as wanted"


class Wanted(msgspec.Struct, frozen=True):
    """What one update is to bring about.

    Args:
        metadata: the whole map.
        changes: those that it carries, by number, oldest first.
    """

    metadata: dict[str, str]
    changes: Mapping[int, MetadataChange]

    @property
    def removed(self) -> set[str]:
        """Keys that one of the changes names in order to remove them, and none sets again."""
        changes = self.changes.values()
        named = {key for change in changes for key, value in change.metadata.items() if value is None}
        return named - self.metadata.keys()

    @property
    def replaces(self) -> bool:
        """Whether one of the changes is to leave exactly its map."""
        return any(change.mode == "replace" for change in self.changes.values())

    def responsible_for(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the changes that had the last word on these keys; for keys that none names, of all."""
        responsible: set[int] = set()
        for key in keys:
            last = None
            for number, change in self.changes.items():
                if key in change.metadata or change.mode == "replace":
                    last = number
            responsible |= set(self.changes) if last is None else {last}
        return responsible


def wrong_keys(shown: Mapping[str, str], wanted: Wanted) -> list[str]:
    """Keys that the service has otherwise than was wanted: another value, none, or still there though removed."""
    wrong = [key for key, value in wanted.metadata.items() if shown.get(key) != value]
    removed = wanted.removed
    return wrong + [key for key in shown if key in removed]


def ending_of(shown: Mapping[str, str] | None, wanted: Wanted, semantics: Semantics) -> Ended:
    """What an answer that says done is worth to others: only one that shows what was wanted proves anything."""
    if shown is None or shown == wanted.metadata:
        return SUCCEEDED
    if wrong := wrong_keys(shown, wanted):
        return Ended(End.REJECTED, error=f"{NOT_AS_WANTED}: {', '.join(wrong)}")
    kept = [key for key in shown if key not in wanted.metadata]
    if not kept or not wanted.replaces or semantics == "merge":
        return SUCCEEDED
    if semantics == "replace":
        return Ended(End.ANSWERED)
    return Ended(
        End.FAILED,
        SERVICE_MERGES,
        error=f"the service kept keys that a replacement leaves out ({', '.join(kept)}): set METASYNC_SEMANTICS to "
        "merge, where that is known and wanted, or to replace",
    )


def shown_by_read(answer: Answer) -> Ended:
    """What a read is worth: one that does not show the metadata is no reading."""
    if answer.metadata is not None and answer.whole:
        return SUCCEEDED
    if answer.metadata is not None:
        return Ended(End.ANSWERED)
    return Ended(End.FAILED, METADATA_HIDDEN, error=HIDDEN, status=answer.verdict.status)
