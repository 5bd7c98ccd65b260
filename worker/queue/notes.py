"""The names of the notes that workers leave in the store."""

LIMIT = "limit"  # the rate limit that was found last, in requests a second, of all workers together
EVENT = "event "  # followed by a worker's name: its last halt or the end of one, which concerns all, as JSON
REFUSAL = "refusal "  # followed by a worker's name: the last refusal that it met, likewise
WORKER = "worker "  # followed by the worker's name: what its flow control is doing, as JSON

# A worker's note that is older has been left by one that is gone, or hangs.
FRESH_SECONDS = 10.0
