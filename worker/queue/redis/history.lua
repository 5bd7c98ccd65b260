-- What the queue remembers of its last day, by minute of Unix time.

local KEPT_MINUTES = 24 * 60

local function minute_of(shard)
    return math.floor(shard.now / 60000000)
end

-- With each new minute, the old ones go.
local function forget_minutes(key, minute)
    for _, earlier in ipairs(redis.call('HKEYS', key)) do
        if tonumber(earlier) < minute - KEPT_MINUTES then
            redis.call('HDEL', key, earlier)
        end
    end
end

local function remember_done(shard, applied, unchanged, dead)
    local minute = minute_of(shard)
    local found = redis.call('HGET', shard.done, minute)
    if found then
        local counts = cmsgpack.unpack(found)
        applied, unchanged, dead = applied + counts[1], unchanged + counts[2], dead + counts[3]
    else
        forget_minutes(shard.done, minute)
    end
    redis.call('HSET', shard.done, minute, cmsgpack.pack({applied, unchanged, dead}))
end

-- ARGV: the sample, packed.
local function record_sample(keys, args)
    local shard = shard_at(keys[1])
    local minute = minute_of(shard)
    if redis.call('HSET', shard.sample, minute, args[1]) == 1 then
        forget_minutes(shard.sample, minute)
    end
end

-- ARGV: how many minutes. Gives [this minute, [[applied, unchanged, dead] or false], [sample or false]], oldest first.
local function history(keys, args)
    local shard = shard_at(keys[1])
    local newest, minutes = minute_of(shard), {}
    for minute = newest - tonumber(args[1]) + 1, newest do
        minutes[#minutes + 1] = minute
    end
    local done, samples = read('HMGET', shard.done, minutes), read('HMGET', shard.sample, minutes)
    for i = 1, #minutes do
        done[i] = done[i] or cmsgpack.pack(false)
        samples[i] = samples[i] or cmsgpack.pack(false)
    end
    return array({cmsgpack.pack(newest), array(done), array(samples)})
end

-- ARGV: reasons. Gives how many letters each has.
local function dead_reasons(keys, args)
    local shard, counts = shard_at(keys[1]), {}
    for i, reason in ipairs(args) do
        counts[i] = redis.call('ZCARD', shard.dead_reason .. reason)
    end
    return counts
end

register('record_sample', record_sample)
register('history', history, 'no-writes')
register('dead_reasons', dead_reasons, 'no-writes')
