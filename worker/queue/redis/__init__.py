"""The Redis and Valkey backend: many machines, one server.

Begin with `queue.py`: each call is one function in Lua, so that it happens whole or not at all. `library.py` loads the
functions, `codec.py` packs what they take and give, `server.py` keeps connections, `examination.py` warns of what the
server may lose. docs/redis.md says what users see.
"""

from worker.queue.redis.library import migration_sql
from worker.queue.redis.queue import RedisQueue

__all__ = ["RedisQueue", "migration_sql"]
