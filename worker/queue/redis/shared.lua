-- What workers share: a rate, by the generic cell rate algorithm, and notes.

local FURTHEST = 10000000 -- no worker reaches further ahead: a queue that says so had its clock put back
local ENOUGH = 0.000001

-- ARGV: how many requests, the interval between two, how far ahead of now the last may be due; in microseconds.
-- Gives how many are granted, and the microseconds until the first is due; with none granted, until it makes sense to
-- ask again.
local function take_quota(keys, args)
    local queue = queue_at(keys[1])
    local requests, interval, ahead = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
    local due = tonumber(redis.call('HGET', queue.queue, 'quota_due') or 0)
    local starts = math.min(math.max(due, queue.now), queue.now + FURTHEST + interval)
    local room = math.floor((queue.now + ahead - starts) / interval + ENOUGH) + 1
    local granted = math.max(0, math.min(requests, room))
    if granted == 0 then
        if starts < due then
            redis.call('HSET', queue.queue, 'quota_due', string.format('%.3f', starts))
        end
        return {0, math.ceil(starts - queue.now - ahead)}
    end
    redis.call('HSET', queue.queue, 'quota_due', string.format('%.3f', starts + granted * interval))
    return {granted, math.ceil(starts - queue.now)}
end

-- ARGV: name, and the text unless the note is to go.
local function write_note(keys, args)
    local queue = queue_at(keys[1])
    if args[2] then
        redis.call('HSET', queue.note, args[1], cmsgpack.pack({args[2], queue.now}))
    else
        redis.call('HDEL', queue.note, args[1])
    end
end

-- ARGV: name. Gives now, and the note, if there is one.
local function read_note(keys, args)
    local queue = queue_at(keys[1])
    return {queue.now, redis.call('HGET', queue.note, args[1])}
end

-- Gives now, and names and notes in turns.
local function read_notes(keys)
    local queue = queue_at(keys[1])
    return {queue.now, redis.call('HGETALL', queue.note)}
end

register('take_quota', take_quota, 'allow-oom')
register('write_note', write_note, 'allow-oom')
register('read_note', read_note, 'no-writes')
register('read_notes', read_notes, 'no-writes')
