-- Storing changes.

local RECENT = 20 -- completions that came last

-- Where the first change lies whose number is above this one: they lie in the order of their numbers.
local function index_above(list, number)
    local first, last = 0, redis.call('LLEN', list) - 1
    while first <= last do
        local middle = math.floor((first + last) / 2)
        if cmsgpack.unpack(redis.call('LINDEX', list, middle))[1] <= number then
            first = middle + 1
        else
            last = middle - 1
        end
    end
    return first
end

-- The number and the completion_id that are kept of the pending change of a change_id.
local function number_and_completion(place)
    local number, completion_id = string.match(place, '^(%d+):(.*)$')
    return tonumber(number), completion_id
end

-- The pending change that this is said to be, as [completion_id, change_id, mode, metadata, as_of, batch]; nil where a server
-- that evicts keys has thrown it away.
local function pending_at(queue, place)
    local number, completion_id = number_and_completion(place)
    local list = queue.changes .. completion_id
    local found = redis.call('LINDEX', list, index_above(list, number - 1))
    local change = found and cmsgpack.unpack(found)
    if change and change[1] == number then
        return {completion_id, change[3], change[4], change[5], change[7], change[8]}
    end
end

local function is_same_map(one, other)
    if one == other then
        return true
    end
    one, other = cjson.decode(one), cjson.decode(other)
    for key, value in pairs(one) do
        if other[key] ~= value then
            return false
        end
    end
    for key in pairs(other) do
        if one[key] == nil then
            return false
        end
    end
    return true
end

-- Sorts changes [completion_id, change_id, mode, metadata, ...] into new ones and duplicates. Gives the positions of
-- new ones; the positions of those that differ from the pending change with their change_id, in the queue or earlier in
-- this call; and how many duplicates there are by the batch of the pending change, '' for none.
local function sort_out(queue, changes)
    local change_ids, asked, by_change_id, new, conflicts, pending_in = {}, {}, {}, {}, {}, {}
    for i, change in ipairs(changes) do
        change_ids[i] = change[2]
        if change[2] ~= '' then
            asked[#asked + 1] = change[2]
        end
    end
    local settled = was_settled(queue, asked)
    for i, place in ipairs(read('HMGET', queue.change_ids, change_ids)) do
        local change, change_id = changes[i], change_ids[i]
        local pending = by_change_id[change_id] or place and pending_at(queue, place)
        if pending then
            if pending[1] ~= change[1] or pending[3] ~= change[3] or not is_same_map(pending[4], change[4]) then
                conflicts[#conflicts + 1] = i
            else
                local batch = pending[6] or ''
                pending_in[batch] = (pending_in[batch] or 0) + 1
            end
        elseif not settled[change_id] then
            new[#new + 1] = i
            if change_id ~= '' then
                by_change_id[change_id] = change
            end
        end
    end
    return new, conflicts, pending_in
end

-- What is stored of a change that has more to it than most.
local function stored(queue, number, change, is_urgent)
    local _, change_id, mode, metadata, as_of, batch = unpack(change, 1, 6)
    if is_urgent or batch then
        local told = {number, queue.now, change_id, mode, metadata, false, as_of or false, batch or false, is_urgent or nil}
        return cmsgpack.pack(told)
    end
    return cmsgpack.pack({number, queue.now, change_id, mode, metadata, as_of and false, as_of or nil})
end

-- Makes completions urgent that have these changes more, by completion_id. Those that are `fresh` are due then, in turns.
local function hurry(queue, completion_ids, lists, fresh)
    local written, due = {}, {}
    for i, count in ipairs(read('HMGET', queue.urgent_changes, completion_ids)) do
        push(written, completion_ids[i], tonumber(count or 0) + #lists[completion_ids[i]])
    end
    for i, visible_at in ipairs(read('ZMSCORE', queue.due, completion_ids)) do
        if visible_at then
            push(due, visible_at, completion_ids[i])
        end
    end
    write('HSET', queue.urgent_changes, written)
    write('ZADD', queue.urgent, due)
    write('ZADD', queue.urgent, fresh)
    write('ZREM', queue.due, completion_ids)
end

-- Appends what is new of the changes [completion_id, change_id, mode, metadata, as_of, batch]; gives what `sort_out` does.
local function append(queue, changes, is_urgent)
    local new, conflicts, pending_in = sort_out(queue, changes)
    local new_change_ids = {}
    local number = redis.call('HINCRBY', queue.queue, 'change', #new) - #new
    local lists, completion_ids = {}, {}
    for i, position in ipairs(new) do
        local change = changes[position]
        local completion_id, change_id, mode, metadata = unpack(change)
        if not lists[completion_id] then
            lists[completion_id] = {}
            completion_ids[#completion_ids + 1] = completion_id
        end
        local list = lists[completion_id]
        if is_urgent or #change > 4 then
            list[#list + 1] = stored(queue, number + i, change, is_urgent)
        else
            list[#list + 1] = cmsgpack.pack({number + i, queue.now, change_id, mode, metadata})
        end
        if change_id ~= '' then
            push(new_change_ids, change_id, string.format('%.0f:%s', number + i, completion_id))
        end
    end
    local fresh, due, oldest = {}, {}, {}
    for _, completion_id in ipairs(completion_ids) do
        local list = lists[completion_id]
        if write('RPUSH', queue.changes .. completion_id, list) == #list then
            fresh[#fresh + 1] = completion_id
        end
    end
    for i, completion_id in ipairs(fresh) do
        push(due, queue.now - #fresh + i, completion_id) -- a microsecond apart, to be claimed in their order
        push(oldest, queue.now, completion_id)
    end
    if #fresh > 0 and is_any_urgent(queue) then -- a server that evicts keys may have thrown away what they had before
        let_be_usual(queue, fresh)
    end
    if is_urgent then
        hurry(queue, completion_ids, lists, due)
    else
        write('ZADD', queue.due, due)
    end
    write('ZADD', queue.oldest, oldest)
    if #fresh > 0 then
        redis.call('LPUSH', queue.recent, unpack(fresh, math.max(#fresh - RECENT + 1, 1)))
        redis.call('LTRIM', queue.recent, 0, RECENT - 1)
    end
    write('HSET', queue.change_ids, new_change_ids)
    redis.call('HINCRBY', queue.queue, 'pending', #new)
    if #new > 0 then
        redis.call('XADD', queue.news, 'MAXLEN', 1, '*', 'put', #new)
    end
    return new, conflicts, pending_in
end

-- Counted from 0.
local function positions(found)
    for i, position in ipairs(found) do
        found[i] = position - 1
    end
    return found
end

-- ARGV: changes [[completion_id, change_id, mode, metadata, as_of]], the name of their batch or '', and '1' for urgent. Gives
-- how many were stored, the positions of conflicts, and how many others are pending, after the batch of each.
local function put(keys, args)
    local queue, changes, batch = queue_at(keys[1]), cmsgpack.unpack(args[1]), args[2]
    if batch ~= '' then
        for _, change in ipairs(changes) do
            change[5], change[6] = change[5] or false, batch
        end
    end
    local new, conflicts, pending_in = append(queue, changes, args[3] == '1')
    if batch ~= '' then
        count_in_batches(queue, {[batch] = {#new, 0, 0, 0, 0, 0}})
    end
    local told = {}
    for name, count in pairs(pending_in) do
        push(told, name, count)
    end
    return {#new, positions(conflicts), told}
end

-- ARGV: changes, as above. Gives the positions of conflicts; stores nothing.
local function conflicts(keys, args)
    local _, found = sort_out(queue_at(keys[1]), cmsgpack.unpack(args[1]))
    return positions(found)
end

register('put', put)
register('conflicts', conflicts, 'no-writes')
