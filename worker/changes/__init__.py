"""Changes: what one is, how several fold into one update, and how change files are read. Pure: no queue, no service.

Begin with `change.py`: `MetadataChange` and its rules. `fold.py` folds changes into one map. `files.py` reads a file:
`source.py` opens it, `shape.py` recognises its format, `jsonl.py`, `records.py` and `rows.py` read JSON lines, JSON and
CSV. `refusal.py` describes a refused line, `rejects.py` writes refused lines to a file.
"""

from worker.changes.change import MODES, InvalidChange, MetadataChange, Mode

__all__ = ["MODES", "InvalidChange", "MetadataChange", "Mode"]
