-- What the queue does, each operation one function: nothing else happens on the server while it runs.
--
-- KEYS[1] is a shard's base name, such as {metasync:0}; the hash tag keeps all its keys on one node of a cluster:
--
--   BASE:due                 sorted set: completion_id by visible_at, which is due time, retry time and lease deadline
--   BASE:oldest              sorted set: completion_id by the time at which its oldest pending change was enqueued
--   BASE:changes:COMPLETION  list of the completion's pending changes, oldest first
--   BASE:lease               hash: by completion_id, while somebody holds it, lease number and owner
--   BASE:failure             hash: by completion_id, once it has failed, attempts and error
--   BASE:change_ids          set: those of the pending changes
--   BASE:counter             hash: the last change, lease and letter numbers; pending, how many changes there are
--   BASE:history             hash: changes done by minute of Unix time
--   BASE:done                hash: by minute of Unix time, changes applied, unchanged and dead
--   BASE:sample              hash: by minute of Unix time, how things stood (of shard 0 alone)
--   BASE:letter              hash: dead letter by its number
--   BASE:dead                sorted set: numbers of the dead letters, by themselves
--   BASE:dead:reason:REASON, BASE:dead:completion:COMPLETION   likewise, of those alone
--   BASE:caller:NAME         what a caller's last claim took, in case that its answer was lost
--   BASE:budget              when the next permit of the rate that all workers share is due (of shard 0 alone)
--   BASE:note                hash: text and time of writing by name (of shard 0 alone)
--   BASE:queue               hash: what the queue is (of shard 0 alone)
--
-- Times are microseconds of Unix time by the server's clock. A change is the MessagePack array
-- [number, enqueued_at, change_id, mode, metadata], with '' for no change_id; a dead letter is
-- [number, died_at, completion_id, change, fate]. Neither holds a nil, which cmsgpack could not write in an array.

local MAX_ARGUMENTS = 1000 -- of one command: Lua's stack takes a few thousand

local function shard_at(base)
    local time = redis.call('TIME')
    return {
        now = tonumber(time[1]) * 1000000 + tonumber(time[2]),
        due = base .. ':due',
        oldest = base .. ':oldest',
        changes = base .. ':changes:',
        lease = base .. ':lease',
        failure = base .. ':failure',
        change_ids = base .. ':change_ids',
        counter = base .. ':counter',
        history = base .. ':history',
        done = base .. ':done',
        sample = base .. ':sample',
        letter = base .. ':letter',
        dead = base .. ':dead',
        dead_reason = base .. ':dead:reason:',
        dead_completion = base .. ':dead:completion:',
        caller = base .. ':caller:',
        budget = base .. ':budget',
        note = base .. ':note',
        queue = base .. ':queue',
    }
end

-- Each call of a command costs more than what it does: what can be done for many at once is done so.
local function write(command, key, arguments)
    local reply
    for first = 1, #arguments, MAX_ARGUMENTS do
        reply = redis.call(command, key, unpack(arguments, first, math.min(first + MAX_ARGUMENTS - 1, #arguments)))
    end
    return reply
end

local function read(command, key, arguments)
    local replies = {}
    for first = 1, #arguments, MAX_ARGUMENTS do
        local last = math.min(first + MAX_ARGUMENTS - 1, #arguments)
        for _, reply in ipairs(redis.call(command, key, unpack(arguments, first, last))) do
            replies[#replies + 1] = reply
        end
    end
    return replies
end

local function push(list, first, second)
    list[#list + 1] = first
    list[#list + 1] = second
end

-- A MessagePack array of what is packed already.
local function array(packed)
    return '\221' .. struct.pack('>I4', #packed) .. table.concat(packed)
end

-- Numbers that are given out rise by the number of shards, so that no two shards give out the same.
local function numbering(shard, name, index, shards)
    local last = tonumber(redis.call('HGET', shard.counter, name) or 0)
    local function next_number()
        last = last + 1
        return last * shards + index
    end
    local function keep()
        redis.call('HSET', shard.counter, name, last)
    end
    return next_number, keep
end

-- The leases of these completions, in their order; false for one that nobody holds.
local function leases_of(shard, completion_ids)
    local leases = read('HMGET', shard.lease, completion_ids)
    for i, lease in ipairs(leases) do
        leases[i] = lease and cmsgpack.unpack(lease) -- the first value; the owner comes after it
    end
    return leases
end

-- By completion_id, the leases of what is named in arrays that begin with a completion_id.
local function held(shard, named)
    local completion_ids, leases = {}, {}
    for i, each in ipairs(named) do
        completion_ids[i] = each[1]
    end
    for i, lease in ipairs(leases_of(shard, completion_ids)) do
        leases[completion_ids[i]] = lease
    end
    return leases
end

-- These have no pending changes any more.
local function forget(shard, completion_ids)
    write('HDEL', shard.lease, completion_ids)
    write('HDEL', shard.failure, completion_ids)
    write('ZREM', shard.due, completion_ids)
    write('ZREM', shard.oldest, completion_ids)
end

local function register(name, callback, ...)
    redis.register_function({function_name = LIBRARY .. '_' .. name, callback = callback, flags = {...}})
end

-- ARGV: schema, number of shards, for a queue that is new. Gives what it is. Where the memory is used up, whoever comes
-- to empty the queue has to get in: allow-oom.
local function open(keys, args)
    local shard = shard_at(keys[1])
    redis.call('HSETNX', shard.queue, 'schema', args[1])
    redis.call('HSETNX', shard.queue, 'shards', args[2])
    return redis.call('HMGET', shard.queue, 'schema', 'shards')
end

register('open', open, 'allow-oom')
