"""The names of the notes that workers leave in the store."""

LIMIT = "limit"  # the rate limit that a worker found last, in requests a second
WORKER = "worker "  # followed by the worker's name: what its flow control is doing, as JSON

# A worker's note that is older has been left by one that is gone, or hangs.
FRESH_SECONDS = 10.0
