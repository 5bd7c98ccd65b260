-- The log of the metadata that the service confirmed. An entry of the stream has the number of a settlement, how many
-- updates there had been by then, and their completion_ids. The maps are beside it, since most readers do not need
-- them.

local function entry_id(number)
    return string.format('%.0f-0', number)
end

local function read_entry(entry)
    return tonumber(string.match(entry[1], '^%d+')), tonumber(entry[2][2]), entry[2][4]
end

local function delete_entry(queue, id, number)
    redis.call('XDEL', queue.confirmed, id)
    redis.call('HDEL', queue.confirmed_maps, number)
end

-- Lets an old entry go. Two at most in one settlement, so that none pays for many; gives 1 if one went before its time.
local function forget_confirmed(queue, total, keep_us, keep_updates)
    local is_cut_short = 0
    for _, entry in ipairs(redis.call('XRANGE', queue.confirmed, '-', '+', 'COUNT', 2)) do
        local number, entry_total = read_entry(entry)
        local is_old = number <= queue.now - keep_us
        if is_old or entry_total <= total - keep_updates then
            delete_entry(queue, entry[1], number)
            is_cut_short = is_old and is_cut_short or 1
        end
    end
    return is_cut_short
end

-- Numbers hold after a failover, as those of leases do.
local function append_confirmed(queue, completion_ids, maps, keep_us, keep_updates)
    local number = math.max(tonumber(redis.call('HGET', queue.queue, 'confirmed') or 0) + 1, queue.now)
    local total = redis.call('HINCRBY', queue.queue, 'confirmed_total', #completion_ids)
    redis.call('HSET', queue.queue, 'confirmed', number)
    redis.call('XADD', queue.confirmed, entry_id(number), 'total', total, 'ids', cmsgpack.pack(completion_ids))
    redis.call('HSET', queue.confirmed_maps, number, cmsgpack.pack(maps))
    return forget_confirmed(queue, total, keep_us, keep_updates)
end

-- Gives, packed, [number, completion_ids] of each entry after that number and since that time.
local function confirmed_news(queue, after, since)
    local first, news = entry_id(math.max(after + 1, since + 1)), {}
    for i, entry in ipairs(redis.call('XRANGE', queue.confirmed, first, '+')) do
        local number, _, completion_ids = read_entry(entry)
        news[i] = array({cmsgpack.pack(number), completion_ids})
    end
    return array(news)
end

-- ARGV: [[number, [completion_id]]]. Gives [[completion_id, map]] of what is there.
local function confirmed(keys, args)
    local queue, found = queue_at(keys[1]), {}
    for _, wanted in ipairs(cmsgpack.unpack(args[1])) do
        local number, is_wanted = wanted[1], {}
        for _, completion_id in ipairs(wanted[2]) do
            is_wanted[completion_id] = true
        end
        local id = entry_id(number)
        local entry = redis.call('XRANGE', queue.confirmed, id, id)[1]
        if entry then
            local _, _, completion_ids = read_entry(entry)
            local maps = cmsgpack.unpack(redis.call('HGET', queue.confirmed_maps, number))
            for i, completion_id in ipairs(cmsgpack.unpack(completion_ids)) do
                if is_wanted[completion_id] then
                    found[#found + 1] = array({cmsgpack.pack(completion_id), cmsgpack.pack(maps[i])})
                end
            end
        end
    end
    return array(found)
end

-- ARGV: how many microseconds ago what goes was confirmed, at least; how many entries to look at.
local function expire_confirmed(keys, args)
    local queue = queue_at(keys[1])
    for _, entry in ipairs(redis.call('XRANGE', queue.confirmed, '-', '+', 'COUNT', args[2])) do
        local number = read_entry(entry)
        if number > queue.now - args[1] then
            break
        end
        delete_entry(queue, entry[1], number)
    end
end

register('confirmed', confirmed, 'no-writes')
register('expire_confirmed', expire_confirmed, 'allow-oom')
