"""The endpoint: a client, the meaning of its answers, and the backoff between tries.

Begin with `client.py`: one call makes one request and returns one `Answer`. `judging.py` turns the response into a
`Verdict` (`verdict.py`), by the codes in `table.py`. `failure.py` judges a call without a response, and `retry.py` has
the backoff. `direct.py` and `session.py` are the two transports. `redact.py` keeps secrets out of errors.
"""

from worker.api.answer import Answer
from worker.api.client import Client
from worker.api.failure import failure
from worker.api.headers import RateLimit
from worker.api.judging import verdict
from worker.api.retry import RetryPolicy, backoff_seconds, retry
from worker.api.verdict import OK, About, Halt, Kind, Verdict

__all__ = [
    "OK",
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
