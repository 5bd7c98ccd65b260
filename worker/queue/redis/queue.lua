-- The queue's operations, one function each, so that each is atomic.
--
-- KEYS[1] is the prefix of the queue's keys, such as metasync: with its colon.
-- Times are microseconds of Unix time by the server's clock. A change is the MessagePack array [number, enqueued_at,
-- change_id, mode, metadata, trials, as_of, batch, urgent]. A missing change_id is '', any other missing element is
-- false, and missing elements at the end are left out, so that most changes have five. Trials are the engine's record
-- of failed tries.

local MAX_ARGUMENTS = 1000 -- of one command: Lua's stack takes a few thousand

local function queue_at(base)
    local time = redis.call('TIME')
    return {
        now = tonumber(time[1]) * 1000000 + tonumber(time[2]),
        -- hash: schema; the last change, lease, letter and log numbers; how many updates were ever confirmed; how many changes are pending; when a request is due
        queue = base .. 'queue',
        -- sorted sets: completion_id by visible_at, which is due time, retry time and lease deadline; each is in one of
        -- them: in the second those that have urgent changes
        due = base .. 'due',
        urgent = base .. 'urgent',
        -- hash: how many urgent changes those have, by completion_id
        urgent_changes = base .. 'urgent:changes',
        -- list: the completion_ids that came last, the last one first; they may be done
        recent = base .. 'recent',
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
        -- and a caller's name: hash of the answers to its last settlements, by a call's number, in case that they were
        -- lost
        told = base .. 'told:',
        -- hash: the results of a batch's changes, by its name; sorted sets: names by time of creation, and those
        -- without pending changes by the time of their last news
        batch = base .. 'batch',
        batches = base .. 'batches',
        finished = base .. 'batches:finished',
        -- hashes of what is remembered of changes that are done: their change_ids, and the newest as_of by completion_id
        settled = base .. 'settled',
        newest = base .. 'newest',
        -- hash: what was done, and the sample, by minute of Unix time
        minute = base .. 'minute',
        -- hash: dead letter by its number
        letter = base .. 'letter',
        -- sorted sets: numbers of the dead letters, by themselves; of all, and of those of a reason, a completion_id or a
        -- batch
        dead = base .. 'dead',
        dead_reason = base .. 'dead:reason:',
        dead_completion = base .. 'dead:completion:',
        dead_batch = base .. 'dead:batch:',
        -- stream of one entry, written by each put; waiting workers wait for the next one
        news = base .. 'news',
        -- hash: a note's text and time of writing by its name
        note = base .. 'note',
    }
end

-- A command's call costs more than its work, so commands handle many items at once.
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

local function keys_of(map)
    local keys = {}
    for key in pairs(map) do
        keys[#keys + 1] = key
    end
    return keys
end

local function is_any_urgent(queue)
    return redis.call('ZCARD', queue.urgent) > 0
end

-- When those of these that are urgent are due, by completion_id.
local function urgent_among(queue, completion_ids)
    local urgent = {}
    if #completion_ids > 0 and is_any_urgent(queue) then
        for i, visible_at in ipairs(read('ZMSCORE', queue.urgent, completion_ids)) do
            urgent[completion_ids[i]] = visible_at and tonumber(visible_at) or nil
        end
    end
    return urgent
end

local function let_be_usual(queue, completion_ids)
    write('ZREM', queue.urgent, completion_ids)
    write('HDEL', queue.urgent_changes, completion_ids)
end

-- So many urgent changes of urgent completions are gone, by completion_id. Gives which are no longer urgent, by
-- completion_id.
local function take_urgent(queue, gone)
    local completion_ids, counts, usual = keys_of(gone), {}, {}
    for i, count in ipairs(read('HMGET', queue.urgent_changes, completion_ids)) do
        local completion_id = completion_ids[i]
        local left = tonumber(count or 0) - gone[completion_id]
        if left > 0 then
            push(counts, completion_id, left)
        else
            usual[completion_id] = true
        end
    end
    write('HSET', queue.urgent_changes, counts)
    let_be_usual(queue, keys_of(usual))
    return usual
end

-- These have no pending changes any more.
local function forget(queue, completion_ids)
    write('HDEL', queue.lease, completion_ids)
    write('ZREM', queue.due, completion_ids)
    write('ZREM', queue.oldest, completion_ids)
    if #completion_ids > 0 and is_any_urgent(queue) then
        let_be_usual(queue, completion_ids)
    end
end

-- No lease and no delay is longer than an hour. What is due in more than two was put off by a clock that was ahead.
local HOUR = 3600000000
local HEALED = 1000 -- at once

local function put_off(queue, set, most)
    return redis.call('ZRANGE', set, queue.now + 2 * HOUR, '+inf', 'BYSCORE', 'LIMIT', 0, most)
end

-- Makes due what was put off for years; gives whether there was any. The worker of a lease may still be at work: it keeps
-- what a lease may last.
local function heal(queue)
    local is_healed = false
    for _, set in ipairs({queue.due, queue.urgent}) do
        local completion_ids, due = put_off(queue, set, HEALED), {}
        for i, lease in ipairs(read('HMGET', queue.lease, completion_ids)) do
            push(due, lease and queue.now + HOUR or queue.now, completion_ids[i])
        end
        write('ZADD', set, due)
        is_healed = is_healed or #due > 0
    end
    return is_healed
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
