"""The endpoint: its client, what its answers mean, and when to try again."""

from worker.api.answer import Answer
from worker.api.client import Client
from worker.api.failure import failure
from worker.api.headers import RateLimit
from worker.api.retry import RetryPolicy, backoff_seconds, is_retryable, retry
from worker.api.verdict import Halt, Kind, Verdict, verdict

__all__ = [
    "Answer",
    "Client",
    "Halt",
    "Kind",
    "RateLimit",
    "RetryPolicy",
    "Verdict",
    "backoff_seconds",
    "failure",
    "is_retryable",
    "retry",
    "verdict",
]
