-- What there is, for people and for pollers.

-- Gives now, and the earliest visible_at if there is one.
local function next_due(keys)
    local queue = queue_at(keys[1])
    local first = redis.call('ZRANGE', queue.due, 0, 0, 'WITHSCORES')
    return {queue.now, tonumber(first[2])}
end

-- ARGV: how many targets that are due later to pass over, from the latest on, and how many to look at; how many minutes
-- are recent. Gives how many targets are due later; changes of claimed and of waiting ones among those looked at; and
-- of all: now, changes, dead letters, changes done recently, and when the oldest change was enqueued, if there is one.
local function status(keys, args)
    local queue = queue_at(keys[1])
    local offset, limit = tonumber(args[1]), tonumber(args[2])
    local later = redis.call('ZCOUNT', queue.due, queue.now + 1, '+inf')
    local completion_ids, in_flight, waiting, recent = {}, 0, 0, 0
    if offset < later then
        completion_ids = redis.call('ZRANGE', queue.due, offset, math.min(offset + limit, later) - 1, 'REV')
    end
    for i, lease in ipairs(read('HMGET', queue.lease, completion_ids)) do
        local changes = redis.call('LLEN', queue.changes .. completion_ids[i])
        if lease then
            in_flight = in_flight + changes
        else
            waiting = waiting + changes
        end
    end
    for _, minute in ipairs(last_minutes(queue, tonumber(args[3]))) do
        local applied, unchanged, dead = unpack(cmsgpack.unpack(minute))
        recent = recent + applied + unchanged + dead
    end
    local oldest = redis.call('ZRANGE', queue.oldest, 0, 0, 'WITHSCORES')
    local pending = tonumber(redis.call('HGET', queue.queue, 'pending') or 0)
    local dead = redis.call('ZCARD', queue.dead)
    return {later, in_flight, waiting, queue.now, pending, dead, recent, tonumber(oldest[2])}
end

-- ARGV: as those of status, the minutes apart. Gives [how many targets are due later, [[owner, completions, changes, since
-- when, until when] of those looked at that are claimed]].
local function leases(keys, args)
    local queue = queue_at(keys[1])
    local later = redis.call('ZCOUNT', queue.due, queue.now + 1, '+inf')
    local first = tonumber(args[1])
    local due = {}
    if first < later then
        due = redis.call('ZRANGE', queue.due, first, math.min(first + args[2], later) - 1, 'REV', 'WITHSCORES')
    end
    local completion_ids, holders, by_owner = {}, {}, {}
    for i = 1, #due, 2 do
        completion_ids[#completion_ids + 1] = due[i]
    end
    for i, held in ipairs(read('HMGET', queue.lease, completion_ids)) do
        if held then
            local since, owner = lease_number(held), string.match(held, ' (.*)')
            local changes, deadline = redis.call('LLEN', queue.changes .. completion_ids[i]), tonumber(due[2 * i])
            local holder = by_owner[owner]
            if not holder then
                holder = {owner, 0, 0, since, deadline}
                by_owner[owner] = holder
                holders[#holders + 1] = holder
            end
            holder[2], holder[3] = holder[2] + 1, holder[3] + changes
            holder[4], holder[5] = math.min(holder[4], since), math.max(holder[5], deadline)
        end
    end
    return cmsgpack.pack({later, holders})
end

-- ARGV: a cursor, '0' at first. Gives the next one, '0' at the end, and completion_ids that have pending changes, any of
-- them perhaps twice.
local function pending_ids(keys, args)
    local found = redis.call('ZSCAN', queue_at(keys[1]).due, args[1], 'COUNT', 100)
    local completion_ids = {}
    for i = 1, #found[2], 2 do
        completion_ids[#completion_ids + 1] = found[2][i]
    end
    return {found[1], completion_ids}
end

-- ARGV: [[completion_id, how many of its changes to pass over]], how many of each. Gives the changes of each.
local function pending(keys, args)
    local queue, changes = queue_at(keys[1]), {}
    for i, wanted in ipairs(cmsgpack.unpack(args[1])) do
        local first = wanted[2]
        changes[i] = array(redis.call('LRANGE', queue.changes .. wanted[1], first, first + tonumber(args[2]) - 1))
    end
    return array(changes)
end

register('pending', pending, 'no-writes')
register('pending_ids', pending_ids, 'no-writes')
register('leases', leases, 'no-writes')
register('next_due', next_due, 'no-writes')
register('status', status, 'no-writes')
