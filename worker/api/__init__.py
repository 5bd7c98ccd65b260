"""The endpoint: a client, what its answers mean, and when to try again.

Begin with `client.py`: one call, one `Answer`. `judging.py` makes a `Verdict` of it, by the codes in `table.py`;
`verdict.py` has the words. `retry.py` says how long to wait, `failure.py` what it means that no answer came.
`direct.py` and `session.py` are two transports; `redact.py` keeps keys out of errors.
"""

from worker.api.answer import Answer
from worker.api.client import Client
from worker.api.failure import failure
from worker.api.headers import RateLimit
from worker.api.judging import verdict
from worker.api.retry import RetryPolicy, backoff_seconds, retry
from worker.api.verdict import About, Halt, Kind, Verdict

__all__ = [
    "About",
    "Answer",
    "Client",
    "Halt",
    "Kind",
    "RateLimit",
    "RetryPolicy",
    "Verdict",
    "backoff_seconds",
    "failure",
    "retry",
    "verdict",
]
