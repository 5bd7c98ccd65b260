-- Dead letters: writing, reading, retrying, purging. A letter is [number, died_at, completion_id, reason, change, fate].

local function indexes_of(queue, completion_id, reason, batch)
    local indexes = {queue.dead, queue.dead_reason .. reason, queue.dead_completion .. completion_id}
    if batch then
        indexes[4] = queue.dead_batch .. batch
    end
    return indexes
end

local function bury(queue, completion_id, change, reason, fate)
    local number = redis.call('HINCRBY', queue.queue, 'letter', 1)
    local letter = {cmsgpack.pack(number), cmsgpack.pack(queue.now), cmsgpack.pack(completion_id), cmsgpack.pack(reason)}
    push(letter, change, cmsgpack.pack(fate))
    redis.call('HSET', queue.letter, number, array(letter))
    for _, index in ipairs(indexes_of(queue, completion_id, reason, cmsgpack.unpack(change)[8])) do
        redis.call('ZADD', index, number, number)
    end
end

local function delete(queue, letter)
    local number, _, completion_id, reason, change = unpack(letter)
    redis.call('HDEL', queue.letter, number)
    for _, index in ipairs(indexes_of(queue, completion_id, reason, change[8])) do
        redis.call('ZREM', index, number)
    end
end

-- ARGV: selection [above this number, up to this number, how many letters to look at, numbers or nil, completion_id or
-- nil, reason or nil, least and most microseconds since they died, batch or nil].
-- Gives the matching letters, stored and unpacked; the number at which the next page begins, 0 at the end; and the last
-- number given out.
local function selected(queue, packed)
    local after, until_number, limit, numbers, completion_id, reason, shortest, longest, batch =
        unpack(cmsgpack.unpack(packed), 1, 9)
    if not numbers then
        local index = queue.dead
        if completion_id then
            index = queue.dead_completion .. completion_id
        elseif batch then
            index = queue.dead_batch .. batch
        elseif reason then
            index = queue.dead_reason .. reason
        end
        numbers = redis.call('ZRANGE', index, after + 1, until_number, 'BYSCORE', 'LIMIT', 0, limit)
    end
    local stored, letters = {}, {}
    for _, found in ipairs(read('HMGET', queue.letter, numbers)) do
        local letter = found and cmsgpack.unpack(found)
        local age = letter and queue.now - letter[2]
        if letter and letter[3] == (completion_id or letter[3]) and letter[4] == (reason or letter[4])
            and age >= shortest and age <= longest and (letter[5][8] or nil) == (batch or letter[5][8] or nil) then
            stored[#stored + 1], letters[#letters + 1] = found, letter
        end
    end
    local newest = tonumber(redis.call('HGET', queue.queue, 'letter') or 0)
    return letters, stored, tonumber(numbers[limit] or 0), newest
end

-- ARGV: selection. Gives [where to go on, newest, [letter]].
local function dead_letters(keys, args)
    local _, stored, last, newest = selected(queue_at(keys[1]), args[1])
    return array({cmsgpack.pack(last), cmsgpack.pack(newest), array(stored)})
end

-- Of letters, by completion_id, the newest as_of that was applied, where the letter has one.
local function newer_than(queue, letters)
    local completion_ids = {}
    for _, letter in ipairs(letters) do
        if letter[5][7] then
            completion_ids[#completion_ids + 1] = letter[3]
        end
    end
    return newest_among(queue, completion_ids)
end

-- ARGV: selection. Gives [where to go on, newest, [retried, kept, [number of a superseded one]]].
local function retry_dead(keys, args)
    local queue = queue_at(keys[1])
    local letters, _, last, newest = selected(queue, args[1])
    local applied, tried, changes, superseded, batches = newer_than(queue, letters), {}, {}, {}, {}
    for _, letter in ipairs(letters) do
        local _, _, change_id, mode, metadata, _, as_of, batch = unpack(letter[5])
        if as_of and as_of < (applied[letter[3]] or 0) then
            superseded[#superseded + 1] = letter[1]
        else
            tried[#tried + 1] = letter
            changes[#tried] = {letter[3], change_id, mode, metadata, as_of or false, batch or false}
        end
    end
    local retried = append(queue, changes)
    for _, i in ipairs(retried) do
        local batch = changes[i][6]
        if batch then
            batches[batch] = (batches[batch] or 0) + 1
        end
        delete(queue, tried[i])
    end
    revive_in_batches(queue, batches)
    return cmsgpack.pack({last, newest, {#retried, #tried - #retried, superseded}})
end

-- ARGV: selection. Gives [where to go on, newest, purged].
local function purge_dead(keys, args)
    local queue = queue_at(keys[1])
    local letters, _, last, newest = selected(queue, args[1])
    for _, letter in ipairs(letters) do
        delete(queue, letter)
    end
    return cmsgpack.pack({last, newest, #letters})
end

-- ARGV: the highest number to look at, reasons. Gives, for each, how many letters it has, and the newest's number.
local function dead_reasons(keys, args)
    local queue, counts = queue_at(keys[1]), {}
    for i = 2, #args do
        local index = queue.dead_reason .. args[i]
        local newest = redis.call('ZRANGE', index, args[1], 0, 'BYSCORE', 'REV', 'LIMIT', 0, 1)
        counts[i - 1] = {redis.call('ZCOUNT', index, 0, args[1]), tonumber(newest[1] or 0)}
    end
    return counts
end

register('dead_letters', dead_letters, 'no-writes')
register('retry_dead', retry_dead)
register('purge_dead', purge_dead, 'allow-oom')
register('dead_reasons', dead_reasons, 'no-writes')
