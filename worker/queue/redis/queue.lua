-- What the queue does, each operation one function: nothing else happens on the server while it runs.
--
-- KEYS[1] is what the names of the queue's keys begin with, such as metasync: with its colon.
-- Times are microseconds of Unix time by the server's clock. A change is the MessagePack array
-- [number, enqueued_at, change_id, mode, metadata], with '' for no change_id, and a sixth element, what the engine noted
-- about failed tries, where there were some.

local MAX_ARGUMENTS = 1000 -- of one command: Lua's stack takes a few thousand

local function queue_at(base)
    local time = redis.call('TIME')
    return {
        now = tonumber(time[1]) * 1000000 + tonumber(time[2]),
        -- hash: schema; the last change, lease, letter and log numbers; how many updates were ever confirmed; how many changes are pending; when a request is due
        queue = base .. 'queue',
        -- sorted set: completion_id by visible_at, which is due time, retry time and lease deadline
        due = base .. 'due',
        -- sorted set: completion_id by the time at which its oldest pending change was enqueued
        oldest = base .. 'oldest',
        -- and a completion_id: list of its pending changes, oldest first
        changes = base .. 'changes:',
        -- hash: number and completion_id of the pending change, by its change_id
        change_ids = base .. 'change_ids',
        -- hash: lease number and, behind a space, its owner by completion_id, until the lease is settled or given back
        lease = base .. 'lease',
        -- stream: what was confirmed, without the maps; hash: the maps by an entry's number
        confirmed = base .. 'confirmed',
        confirmed_maps = base .. 'confirmed:maps',
        -- and a caller's name: hash of what its last claim took, in case that the answer was lost
        caller = base .. 'caller:',
        -- and a caller's name: hash of what it was to be told about its last settlements, likewise, by a call's number
        told = base .. 'told:',
        -- hash: what was done, and the sample, by minute of Unix time
        minute = base .. 'minute',
        -- hash: dead letter by its number
        letter = base .. 'letter',
        -- sorted sets: numbers of the dead letters, by themselves; of all, and of those of a reason or a completion_id
        dead = base .. 'dead',
        dead_reason = base .. 'dead:reason:',
        dead_completion = base .. 'dead:completion:',
        -- stream of one entry: that something was put; whoever waits for work waits for another one
        news = base .. 'news',
        -- hash: a note's text and time of writing by its name
        note = base .. 'note',
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

-- The number of what is in the hash of leases.
local function lease_number(held)
    return held and tonumber(string.match(held, '^%d+'))
end

-- By completion_id, the leases of what is named in arrays that begin with a completion_id.
local function held(queue, named)
    local completion_ids, leases = {}, {}
    for i, each in ipairs(named) do
        completion_ids[i] = each[1]
    end
    for i, lease in ipairs(read('HMGET', queue.lease, completion_ids)) do
        leases[completion_ids[i]] = lease_number(lease)
    end
    return leases
end

-- These have no pending changes any more.
local function forget(queue, completion_ids)
    write('HDEL', queue.lease, completion_ids)
    write('ZREM', queue.due, completion_ids)
    write('ZREM', queue.oldest, completion_ids)
end

local function register(name, callback, ...)
    redis.register_function({function_name = LIBRARY .. '_' .. name, callback = callback, flags = {...}})
end

-- ARGV: schema, for a queue that is new. Gives what it is. Where the memory is used up, a worker that comes to empty
-- the queue has to get in: allow-oom.
local function open(keys, args)
    local queue = queue_at(keys[1])
    redis.call('HSETNX', queue.queue, 'schema', args[1])
    return redis.call('HGET', queue.queue, 'schema')
end

register('open', open, 'allow-oom')
