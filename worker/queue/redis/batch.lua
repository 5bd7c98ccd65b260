-- Batches. What has become of one is [created_at, changes, applied, unchanged, superseded, dead, withdrawn, last_put_at,
-- first_done_at, last_done_at], with 0 for a time that has not come.

local CHANGES, DEAD, LAST_PUT, FIRST_DONE, LAST_DONE = 2, 6, 8, 9, 10
local COUNTS = 6 -- from the changes on

-- By a batch's name, zeros to count in: {changes, applied, unchanged, superseded, dead, withdrawn}.
local function counts_of(by_name, name)
    by_name[name] = by_name[name] or {0, 0, 0, 0, 0, 0}
    return by_name[name]
end

-- Adds these counts, by name; makes the batches that are not there.
local function count_in_batches(queue, by_name)
    local names, written, created, finished, unfinished = keys_of(by_name), {}, {}, {}, {}
    for i, found in ipairs(read('HMGET', queue.batch, names)) do
        local name, batch = names[i], found and cmsgpack.unpack(found)
        if not batch then
            batch = {queue.now, 0, 0, 0, 0, 0, 0, 0, 0, 0}
            created[#created + 1] = name
        end
        local done, ended = 0, 0
        for count, added in ipairs(by_name[name]) do
            batch[count + 1] = batch[count + 1] + added
            if count > 1 then
                done, ended = done + batch[count + 1], ended + added
            end
        end
        if ended > 0 then
            batch[FIRST_DONE] = batch[FIRST_DONE] > 0 and batch[FIRST_DONE] or queue.now
            batch[LAST_DONE] = queue.now
        elseif ended == 0 then
            batch[LAST_PUT] = queue.now
        end
        push(written, name, cmsgpack.pack(batch))
        if batch[CHANGES] > done then
            unfinished[#unfinished + 1] = name
        else
            push(finished, queue.now, name)
        end
    end
    write('HSET', queue.batch, written)
    write('ZADD', queue.finished, finished)
    write('ZREM', queue.finished, unfinished)
    if #created > 0 then
        local last = redis.call('ZRANGE', queue.batches, 0, 0, 'REV', 'WITHSCORES')[2]
        local times = {}
        for i, name in ipairs(created) do -- each later than those before, even if the clock steps
            push(times, math.max(tonumber(last or 0) + i, queue.now), name)
        end
        write('ZADD', queue.batches, times)
    end
end

-- So many letters of batches are pending again, by name. Those whose batch was let go of meanwhile are new in it.
local function revive_in_batches(queue, revived)
    local names, by_name = keys_of(revived), {}
    for i, found in ipairs(read('HMGET', queue.batch, names)) do
        local dead = math.min(found and cmsgpack.unpack(found)[DEAD] or 0, revived[names[i]])
        by_name[names[i]] = {revived[names[i]] - dead, 0, 0, 0, -dead, 0}
    end
    count_in_batches(queue, by_name)
end

-- ARGV: before which number, '+inf' for the newest, how many, and the name of the only one, or ''. Gives [[number, name,
-- what has become of it]], the newest first.
local function batches(keys, args)
    local queue = queue_at(keys[1])
    local found, names, replies = {0, args[3]}, {args[3]}, {}
    if args[3] == '' then
        names = {}
        found = redis.call(
            'ZRANGE', queue.batches, '(' .. args[1], '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, args[2], 'WITHSCORES')
        for i = 1, #found, 2 do
            names[#names + 1] = found[i]
        end
    end
    for i, batch in ipairs(read('HMGET', queue.batch, names)) do
        if batch then
            local number = args[3] == '' and tonumber(found[2 * i]) or 0
            replies[#replies + 1] = array({cmsgpack.pack(number), cmsgpack.pack(names[i]), batch})
        end
    end
    return array(replies)
end

-- ARGV: how many microseconds ago a finished batch was last heard of, at least, unless there are more than so many of
-- them; how many to let go of. Gives how many went.
local function forget_batches(keys, args)
    local queue = queue_at(keys[1])
    local old = redis.call('ZCOUNT', queue.finished, '-inf', '(' .. string.format('%.0f', queue.now - args[1]))
    local too_many = redis.call('ZCARD', queue.finished) - args[2]
    local going = math.min(math.max(old, too_many), args[3])
    local names = going > 0 and redis.call('ZRANGE', queue.finished, 0, going - 1) or {}
    write('ZREM', queue.finished, names)
    write('ZREM', queue.batches, names)
    write('HDEL', queue.batch, names)
    return #names
end

register('batches', batches, 'no-writes')
register('forget_batches', forget_batches, 'allow-oom')
