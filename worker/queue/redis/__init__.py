"""The Redis and Valkey backend: one server for many machines.

Begin with `queue.py`: each call is one Lua function, so that it is atomic. `library.py` loads the
functions, `codec.py` encodes their arguments and results, `server.py` keeps connections, `examination.py` warns of
possible losses. docs/redis.md is for users.
"""

from worker.queue.redis.library import migration_sql
from worker.queue.redis.queue import RedisQueue

__all__ = ["RedisQueue", "migration_sql"]
