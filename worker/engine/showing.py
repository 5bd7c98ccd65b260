"""Compares the metadata that an answer shows with the wanted metadata."""

from collections.abc import Iterable, Mapping

import msgspec

from worker.api import Answer
from worker.changes import MetadataChange
from worker.engine.blame import Semantics
from worker.flow import METADATA_HIDDEN, SERVICE_MERGES, SUCCEEDED, End, Ended

HIDDEN = "the service does not show the completion's metadata: a merge would wipe what is there"
NOT_AS_WANTED = "the service answered 200, but does not have it as wanted"


class Wanted(msgspec.Struct, frozen=True):
    """The goal of one update.

    Args:
        metadata: the whole map.
        changes: the changes that it carries, by number, oldest first.
    """

    metadata: dict[str, str]
    changes: Mapping[int, MetadataChange]

    @property
    def removed(self) -> set[str]:
        """Keys that a change removes, and no later change sets again."""
        changes = self.changes.values()
        named = {key for change in changes for key, value in change.metadata.items() if value is None}
        return named - self.metadata.keys()

    @property
    def replaces(self) -> bool:
        """Whether one of the changes replaces the map."""
        return any(change.mode == "replace" for change in self.changes.values())

    def responsible_for(self, keys: Iterable[str]) -> set[int]:
        """Numbers of the changes that decided these keys last; all numbers for a key that no change names."""
        responsible: set[int] = set()
        for key in keys:
            last = None
            for number, change in self.changes.items():
                if key in change.metadata or change.mode == "replace":
                    last = number
            responsible |= set(self.changes) if last is None else {last}
        return responsible


def wrong_keys(shown: Mapping[str, str], wanted: Wanted) -> list[str]:
    """Keys that differ from the wanted map: with another value, missing, or still there though removed."""
    wrong = [key for key, value in wanted.metadata.items() if shown.get(key) != value]
    removed = wanted.removed
    return wrong + [key for key in shown if key in removed]


def ending_of(shown: Mapping[str, str] | None, wanted: Wanted, semantics: Semantics) -> Ended:
    """What a successful answer proves to flow control: success only if it shows the wanted metadata, or none."""
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
    """What a read proves to flow control: success only if it shows the metadata."""
    if answer.metadata is not None and answer.whole:
        return SUCCEEDED
    if answer.metadata is not None:
        return Ended(End.ANSWERED)
    return Ended(End.FAILED, METADATA_HIDDEN, error=HIDDEN, status=answer.verdict.status)
