"""The endpoint: its client, what its answers mean, and when to try again."""

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
