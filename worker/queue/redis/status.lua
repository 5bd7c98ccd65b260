-- What there is, for people and for pollers.

-- Gives now, and the earliest visible_at if there is one. What was put off for years is due: the next claim sees to it.
local function next_due(keys)
    local queue = queue_at(keys[1])
    local times = {}
    for _, set in ipairs({queue.due, queue.urgent}) do
        times[#times + 1] = tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2])
        if #put_off(queue, set, 1) > 0 then
            times[#times + 1] = queue.now
        end
    end
    table.sort(times)
    return {queue.now, times[1]}
end

-- Gives how many targets are due later; and of those, from the latest that is not urgent to the earliest urgent one,
-- completion_ids and due times. It leaves out the first `offset`, and gives no more than `limit`.
local function due_later(queue, offset, limit)
    local later, found = 0, {}
    for _, set in ipairs({queue.due, queue.urgent}) do
        local count = redis.call('ZCOUNT', set, queue.now + 1, '+inf')
        local first, last = math.max(offset - later, 0), math.min(offset + limit - later, count) - 1
        if first <= last then
            for _, each in ipairs(redis.call('ZRANGE', set, first, last, 'REV', 'WITHSCORES')) do
                found[#found + 1] = each
            end
        end
        later = later + count
    end
    local completion_ids, times = {}, {}
    for i = 1, #found, 2 do
        completion_ids[#completion_ids + 1], times[#times + 1] = found[i], tonumber(found[i + 1])
    end
    return later, completion_ids, times
end

-- ARGV: how many targets that are due later to pass over, and how many to look at; how many minutes are recent.
-- Gives how many targets are due later; the changes of claimed and of waiting ones among those looked at; and for the
-- whole queue now, changes, dead letters, changes done recently, and when the oldest change was enqueued, if there is
-- one.
local function status(keys, args)
    local queue = queue_at(keys[1])
    local later, completion_ids = due_later(queue, tonumber(args[1]), tonumber(args[2]))
    local in_flight, waiting, recent = 0, 0, 0
    for i, lease in ipairs(read('HMGET', queue.lease, completion_ids)) do
        local changes = redis.call('LLEN', queue.changes .. completion_ids[i])
        if lease then
            in_flight = in_flight + changes
        else
            waiting = waiting + changes
        end
    end
    for _, minute in ipairs(last_minutes(queue, tonumber(args[3]))) do
        local applied, unchanged, dead, superseded = unpack(cmsgpack.unpack(minute))
        recent = recent + applied + unchanged + dead + superseded
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
    local later, completion_ids, deadlines = due_later(queue, tonumber(args[1]), tonumber(args[2]))
    local holders, by_owner = {}, {}
    for i, held in ipairs(read('HMGET', queue.lease, completion_ids)) do
        if held then
            local since, owner = lease_number(held), string.match(held, ' (.*)')
            local changes, deadline = redis.call('LLEN', queue.changes .. completion_ids[i]), deadlines[i]
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

register('leases', leases, 'no-writes')
register('next_due', next_due, 'no-writes')
register('status', status, 'no-writes')
