"""What is pending, gone through page by page while it changes."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Walk:
    """How far the walk has come.

    Args:
        cursor: of the server's own walk; None at its end.
        wanted: completions whose changes are to be read next, and how many of each were.
        met: the hashes of those that were met: the server may name one twice.
    """

    cursor: bytes | None = b"0"
    wanted: list[tuple[str, int]] = field(default_factory=list)
    met: set[int] = field(default_factory=set)

    def found(self, cursor: bytes, completion_ids: list[bytes]) -> None:
        """The server's walk has come further."""
        self.cursor = None if cursor == b"0" else cursor
        for completion_id in (each.decode() for each in completion_ids):
            if hash(completion_id) not in self.met:
                self.met.add(hash(completion_id))
                self.wanted.append((completion_id, 0))
