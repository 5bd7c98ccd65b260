-- Records of finished changes. There may be millions, so they are packed: each field of a hash holds dozens of entries
-- of equal width. An entry is a part of the SHA-1 of its text, the second at which it was written, and the as_of, if it
-- is about one. Another part of the SHA-1 selects the field. That takes 12 to 20 bytes per entry; a sorted set takes a
-- hundred. The field 'count' is the number of entries, 'oldest' a lower bound of their seconds. 'next' and 'least' are
-- the progress of a clean-up, and the oldest second that it has left.

local FIELDS = 131072
local MARK = 6 -- bytes
local MARK_AND_TIME = 10
local FIELDS_AT_ONCE = 200 -- to be cleared of what is old
local SAMPLED = 100
local SPARE = 0.01 -- a clean-up is worth while for this share of entries

local function memory_at(key, width)
    return {key = key, width = width}
end

local function settled_of(queue)
    return memory_at(queue.settled, MARK_AND_TIME)
end

local function newest_of(queue)
    return memory_at(queue.newest, MARK_AND_TIME + 8)
end

local function second_of(queue)
    return math.floor(queue.now / 1000000)
end

-- The field where something is to be looked for, and what its entry begins with.
local function place_of(text)
    local hash = redis.sha1hex(text)
    local field, mark = tonumber(string.sub(hash, 1, 8), 16), tonumber(string.sub(hash, 9, 20), 16)
    return string.format('%d', field % FIELDS), struct.pack('>I6', mark)
end

-- Where in a field's text the entry begins.
local function find(memory, held, mark)
    local at = string.find(held, mark, 1, true)
    while at and at % memory.width ~= 1 do
        at = string.find(held, mark, at + 1, true)
    end
    return at
end

-- Gives, by text, what is remembered of it, as it is stored behind its mark.
local function recall(memory, texts)
    local found = {}
    if #texts == 0 or not redis.call('HGET', memory.key, 'count') then
        return found
    end
    local fields, marks = {}, {}
    for i, text in ipairs(texts) do
        fields[i], marks[i] = place_of(text)
    end
    for i, held in ipairs(read('HMGET', memory.key, fields)) do
        local at = held and find(memory, held, marks[i])
        found[texts[i]] = at and string.sub(held, at + MARK, at + memory.width - 1)
    end
    return found
end

-- Remembers the texts from now on, each with what `told` gives for it and for what was remembered of it before.
local function memorize(queue, memory, texts, told)
    if #texts == 0 then
        return
    end
    local fields, marks = {}, {}
    for i, text in ipairs(texts) do
        fields[i], marks[i] = place_of(text)
    end
    fields[#texts + 1], fields[#texts + 2] = 'count', 'oldest'
    local held, replies = {}, read('HMGET', memory.key, fields)
    local count, oldest = tonumber(replies[#texts + 1] or 0), tonumber(replies[#texts + 2] or second_of(queue))
    local time = struct.pack('>I4', second_of(queue))
    for i, text in ipairs(texts) do
        local field = fields[i]
        local before = held[field] or replies[i] or ''
        local at = find(memory, before, marks[i])
        if at then
            local entry = marks[i] .. time .. told(text, string.sub(before, at + MARK, at + memory.width - 1))
            held[field] = string.sub(before, 1, at - 1) .. entry .. string.sub(before, at + memory.width)
        else
            held[field], count = before .. marks[i] .. time .. told(text), count + 1
        end
    end
    local written = {'count', count, 'oldest', math.min(oldest, second_of(queue))}
    for field, entries in pairs(held) do
        push(written, field, entries)
    end
    write('HSET', memory.key, written)
end

local function was_settled(queue, change_ids)
    return recall(settled_of(queue), change_ids)
end

local function remember_settled(queue, change_ids)
    memorize(queue, settled_of(queue), change_ids, function()
        return ''
    end)
end

-- The newest applied as_of, by completion_id, as far as remembered.
local function newest_among(queue, completion_ids)
    local newest = {}
    for completion_id, entry in pairs(recall(newest_of(queue), completion_ids)) do
        newest[completion_id] = entry and struct.unpack('>d', entry, MARK_AND_TIME - MARK + 1)
    end
    return newest
end

-- By completion_id, the newest as_of that was applied now.
local function remember_newest(queue, newest)
    memorize(queue, newest_of(queue), keys_of(newest), function(completion_id, before)
        local as_of = newest[completion_id]
        return struct.pack('>d', before and math.max(struct.unpack('>d', before, 5), as_of) or as_of)
    end)
end

-- ARGV: completion_ids. Returns, packed, [[completion_id, newest as_of]] as far as remembered.
local function newest_as_of(keys, args)
    local found = {}
    for completion_id, as_of in pairs(newest_among(queue_at(keys[1]), args)) do
        found[#found + 1] = as_of and array({cmsgpack.pack(completion_id), cmsgpack.pack(as_of)}) or nil
    end
    return array(found)
end

-- The second before which entries are to go, so that no more than so many are left: judged by some fields, since chance
-- has spread the entries over all.
local function overflow(memory, count, most)
    local fields, seconds = {}, {}
    for i = 1, SAMPLED do
        fields[i] = i - 1
    end
    for _, held in ipairs(read('HMGET', memory.key, fields)) do
        for at = 1, #(held or ''), memory.width do
            seconds[#seconds + 1] = struct.unpack('>I4', held, at + MARK)
        end
    end
    table.sort(seconds)
    local going = math.ceil(#seconds * (1 - most * (1 - SPARE) / count))
    return (seconds[going] or 0) + 1
end

-- Clears a field of the entries before this second, as many as may go. Gives what is left, how many went, and the
-- oldest second left.
local function clear(memory, held, second, most, least)
    local kept, gone, from = {}, 0, 1 -- from here on nothing has gone
    for at = 1, #held, memory.width do
        local written = struct.unpack('>I4', held, at + MARK)
        if written < second and gone < most then
            kept[#kept + 1] = string.sub(held, from, at - 1)
            from, gone = at + memory.width, gone + 1
        else
            least = math.min(least, written)
        end
    end
    if gone > 0 then
        kept[#kept + 1] = string.sub(held, from)
        held = table.concat(kept)
    end
    return held, gone, least
end

-- ARGV: the memory's name; how many microseconds ago what goes was written, at least, unless there are more entries than
-- so many; how many may go at most. Looks at some fields. Gives how many went, and 1 if
-- nothing is left to do.
local function forget_remembered(keys, args)
    local queue = queue_at(keys[1])
    local memory = args[1] == 'settled' and settled_of(queue) or newest_of(queue)
    local age, most_kept, most = args[2] / 1000000, tonumber(args[3]), tonumber(args[4])
    local state = redis.call('HMGET', memory.key, 'count', 'oldest', 'next', 'least', 'cut')
    local count, oldest = tonumber(state[1] or 0), tonumber(state[2] or 0)
    local first, least, cut = tonumber(state[3] or 0), tonumber(state[4] or 0), tonumber(state[5] or 0)
    local second = math.floor((queue.now - args[2]) / 1000000)
    if first == 0 then
        local is_full = count > most_kept
        if count == 0 or not is_full and oldest >= second - age * SPARE then
            return {0, 1}
        end
        least, cut = second_of(queue), is_full and overflow(memory, count, most_kept) or 0
    end
    local fields, written, emptied, gone, last = {}, {}, {}, 0, math.min(first + FIELDS_AT_ONCE, FIELDS) - 1
    for field = first, last do
        fields[#fields + 1] = field
    end
    for i, held in ipairs(read('HMGET', memory.key, fields)) do
        if held then
            local left, went
            left, went, least = clear(memory, held, math.max(second, cut), most - gone, least)
            gone = gone + went
            if left == '' then
                emptied[#emptied + 1] = fields[i]
            elseif went > 0 then
                push(written, fields[i], left)
            end
            if gone == most then -- there may be more in this field
                last = fields[i] - 1
                break
            end
        end
    end
    write('HSET', memory.key, written)
    write('HDEL', memory.key, emptied)
    local is_over = last == FIELDS - 1
    redis.call('HSET', memory.key, 'count', count - gone, 'oldest', is_over and least or oldest,
        'next', is_over and 0 or last + 1, 'least', least, 'cut', cut)
    return {gone, is_over and 1 or 0}
end

register('newest_as_of', newest_as_of, 'no-writes')
register('forget_remembered', forget_remembered, 'allow-oom')
