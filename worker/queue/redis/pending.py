"""What is pending, gone through page by page while it changes."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Walk:
    """How far the walk has come.

    Args:
        cursor: of the server's own walk; None at its end.
        wanted: completions whose changes are to be looked at next, and the number that those are above.
        met: the hashes of those that must not be met again: the server may name one twice.
    """

    cursor: bytes | None = b"0"
    wanted: list[tuple[str, int]] = field(default_factory=list)
    met: set[int] = field(default_factory=set)

    def found(self, cursor: bytes, completion_ids: list[bytes]) -> None:
        """The server's walk has come further."""
        self.cursor = None if cursor == b"0" else cursor
        self.wanted += [(completion_id, 0) for each in completion_ids if self._is_new(completion_id := each.decode())]

    def _is_new(self, completion_id: str) -> bool:
        return hash(completion_id) not in self.met

    @property
    def is_over(self) -> bool:
        """Whether all was looked at."""
        return self.cursor is None and not self.wanted
