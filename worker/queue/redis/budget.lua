-- The rate that all workers share, by the generic cell rate algorithm; in shard 0.

local FURTHEST = 10000000 -- nobody reaches further ahead: a queue that says so had its clock put back
local ENOUGH = 0.000001

-- ARGV: how many permits, the interval between two, how far ahead of now the last may be due; in microseconds.
-- Gives how many there are, and the microseconds until the first is due or, where there is none, until asking makes sense.
local function take_permits(keys, args)
    local shard = shard_at(keys[1])
    local count, interval, ahead = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
    local due = tonumber(redis.call('GET', shard.budget) or 0)
    local starts = math.min(math.max(due, shard.now), shard.now + FURTHEST + interval)
    local room = math.floor((shard.now + ahead - starts) / interval + ENOUGH) + 1
    local permits = math.max(0, math.min(count, room))
    if permits == 0 then
        return {0, math.ceil(starts - shard.now - ahead)}
    end
    redis.call('SET', shard.budget, string.format('%.3f', starts + permits * interval))
    return {permits, math.ceil(starts - shard.now)}
end

register('take_permits', take_permits, 'allow-oom')
