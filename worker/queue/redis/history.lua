-- What the queue remembers of its last day: of each minute [applied, unchanged, dead, superseded,
-- withdrawn, sample], with '' for no sample.

local KEPT_MINUTES = 24 * 60
local NOTHING = '\150\0\0\0\0\0\160' -- [0, 0, 0, 0, 0, ''], packed
local SAMPLE = 6

local function minute_of(queue)
    return math.floor(queue.now / 60000000)
end

-- Adds what was done, in that order, and the sample, if there is one.
local function record(queue, done, sample)
    local minute = minute_of(queue)
    local found = redis.call('HGET', queue.minute, minute)
    if not found then -- with each new minute, the old ones go
        for _, earlier in ipairs(redis.call('HKEYS', queue.minute)) do
            if tonumber(earlier) < minute - KEPT_MINUTES then
                redis.call('HDEL', queue.minute, earlier)
            end
        end
    end
    local counts = cmsgpack.unpack(found or NOTHING)
    for i, count in ipairs(done) do
        counts[i] = counts[i] + count
    end
    counts[SAMPLE] = sample or counts[SAMPLE]
    redis.call('HSET', queue.minute, minute, cmsgpack.pack(counts))
end

-- The last minutes, packed, oldest first.
local function last_minutes(queue, count)
    local names = {}
    for i = 1, count do
        names[i] = minute_of(queue) - count + i
    end
    local minutes = read('HMGET', queue.minute, names)
    for i = 1, count do
        minutes[i] = minutes[i] or NOTHING
    end
    return minutes
end

-- ARGV: the sample.
local function record_sample(keys, args)
    record(queue_at(keys[1]), {}, args[1])
end

-- ARGV: how many minutes. Gives [this minute, [minute]].
local function history(keys, args)
    local queue = queue_at(keys[1])
    return array({cmsgpack.pack(minute_of(queue)), array(last_minutes(queue, tonumber(args[1])))})
end

register('record_sample', record_sample)
register('history', history, 'no-writes')
