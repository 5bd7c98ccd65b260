"""What a change is, how changes fold into one update, how files are read.

It is pure: it knows no queue and no service. Begin with `change.py`: `MetadataChange` and the rules that it keeps.
`fold.py` makes one map of many changes. `files.py` reads a file: `source.py` opens it, `shape.py` tells what it holds,
`jsonl.py`, `records.py` and `rows.py` read JSON lines, JSON and CSV. `refusal.py` and `rejects.py` say and keep what
is refused.
"""

from worker.changes.change import MODES, InvalidChange, MetadataChange, Mode

__all__ = ["MODES", "InvalidChange", "MetadataChange", "Mode"]
