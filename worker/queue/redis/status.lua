-- What there is, for people and for pollers.

-- Gives [now, earliest visible_at or nil].
local function next_due(keys)
    local shard = shard_at(keys[1])
    local first = redis.call('ZRANGE', shard.due, 0, 0, 'WITHSCORES')
    return array({cmsgpack.pack(shard.now), cmsgpack.pack(tonumber(first[2]))})
end

-- ARGV: offset from the latest visible_at, how many targets to look at. Gives the position after the last one that is
-- due later, or -1 at the end of those; changes of claimed and of waiting ones among them; and the counts of all.
local function status(keys, args)
    local shard = shard_at(keys[1])
    local offset, limit = tonumber(args[1]), tonumber(args[2])
    local later = redis.call('ZRANGE', shard.due, offset, offset + limit - 1, 'REV', 'WITHSCORES')
    local next_offset, in_flight, waiting = offset + limit, 0, 0
    if #later < 2 * limit then
        next_offset = -1
    end
    local completion_ids = {}
    for i = 1, #later, 2 do
        if tonumber(later[i + 1]) <= shard.now then
            next_offset = -1
            break
        end
        completion_ids[#completion_ids + 1] = later[i]
    end
    for i, lease in ipairs(leases_of(shard, completion_ids)) do
        local changes = redis.call('LLEN', shard.changes .. completion_ids[i])
        if lease then
            in_flight = in_flight + changes
        else
            waiting = waiting + changes
        end
    end
    local oldest = redis.call('ZRANGE', shard.oldest, 0, 0, 'WITHSCORES')
    local history = {}
    for _, field in ipairs(redis.call('HGETALL', shard.history)) do
        history[#history + 1] = tonumber(field)
    end
    return cmsgpack.pack({
        next_offset, in_flight, waiting, shard.now,
        tonumber(redis.call('HGET', shard.counter, 'pending') or 0), redis.call('ZCARD', shard.dead),
        tonumber(oldest[2] or -1), history,
    })
end

register('next_due', next_due, 'no-writes')
register('status', status, 'no-writes')
