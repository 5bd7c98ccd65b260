"""The durable queue: one contract in five parts, and a backend per kind of store, chosen by URL in `opening.py`.

Begin with `store.py` and the five protocols that it combines: `pending.py`, `batch.py`, `letters.py`,
`coordination.py`, `history.py`. `base.py` is the backends' common part, and `memory/` the one for tests. `patient.py`
waits for a store that is away, `blocking.py` serves code without asyncio. CONTRIBUTING.md says how to add a store.
"""

from worker.queue.batch import (
    EVERYTHING,
    MAX_BATCH_NAME_LENGTH,
    Batch,
    Batches,
    PendingSelection,
    Withdrawn,
    check_batch_name,
    new_batch_name,
)
from worker.queue.blocking import SyncQueue, open_queue_sync
from worker.queue.coordination import Coordination, Note
from worker.queue.errors import QueueError, QueueMisnamed, QueueUnavailable, QueueUnusable, QueueUnwritable
from worker.queue.history import History, HistoryMinute, Sample
from worker.queue.letters import REASONS, DeadLetter, DeadLetters, DeadSelection, LetterCount, Reason, Revived
from worker.queue.opening import migration_sql, open_queue
from worker.queue.patient import open_patiently
from worker.queue.pausing import MAX_PAUSE_CHARACTERS, Pause, Standstill, pause, pause_of, read_pause, resume
from worker.queue.pending import (
    LONGEST_SECONDS,
    MAX_BYTES_PER_CALL,
    MAX_CHANGES_PER_CLAIM,
    Claim,
    Death,
    LeaseHolder,
    Place,
    Queue,
    QueuedChange,
    QueueStatus,
    Settlement,
    Stored,
)
from worker.queue.quota import Grant
from worker.queue.store import Store

__all__ = [
    "EVERYTHING",
    "LONGEST_SECONDS",
    "MAX_BATCH_NAME_LENGTH",
    "MAX_BYTES_PER_CALL",
    "MAX_CHANGES_PER_CLAIM",
    "MAX_PAUSE_CHARACTERS",
    "REASONS",
    "Batch",
    "Batches",
    "Claim",
    "Coordination",
    "DeadLetter",
    "DeadLetters",
    "DeadSelection",
    "Death",
    "Grant",
    "History",
    "HistoryMinute",
    "LeaseHolder",
    "LetterCount",
    "Note",
    "Pause",
    "PendingSelection",
    "Place",
    "Queue",
    "QueueError",
    "QueueMisnamed",
    "QueueStatus",
    "QueueUnavailable",
    "QueueUnusable",
    "QueueUnwritable",
    "QueuedChange",
    "Reason",
    "Revived",
    "Sample",
    "Settlement",
    "Standstill",
    "Store",
    "Stored",
    "SyncQueue",
    "Withdrawn",
    "check_batch_name",
    "migration_sql",
    "new_batch_name",
    "open_patiently",
    "open_queue",
    "open_queue_sync",
    "pause",
    "pause_of",
    "read_pause",
    "resume",
]
