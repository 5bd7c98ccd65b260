-- Storing changes.

-- The pending change that this is said to be, as [completion_id, change_id, mode, metadata]; nil where a server that evicts
-- keys has thrown it away.
local function pending_at(queue, place)
    local number, completion_id = string.match(place, '^(%d+):(.*)$')
    number = tonumber(number)
    local list = queue.changes .. completion_id
    local first, last = 0, redis.call('LLEN', list) - 1
    while first <= last do -- they lie in the order of their numbers
        local middle = math.floor((first + last) / 2)
        local change = cmsgpack.unpack(redis.call('LINDEX', list, middle))
        if change[1] == number then
            return {completion_id, change[3], change[4], change[5]}
        elseif change[1] < number then
            first = middle + 1
        else
            last = middle - 1
        end
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

-- Of changes [completion_id, change_id, mode, metadata], gives the positions of what is new, and of what says something
-- else than what is pending under its change_id, in the queue or, before it, here.
local function sort_out(queue, changes)
    local change_ids, by_change_id, new, conflicts = {}, {}, {}, {}
    for i, change in ipairs(changes) do
        change_ids[i] = change[2]
    end
    for i, place in ipairs(read('HMGET', queue.change_ids, change_ids)) do
        local change, change_id = changes[i], change_ids[i]
        local pending = by_change_id[change_id] or place and pending_at(queue, place)
        if not pending then
            new[#new + 1] = i
            if change_id ~= '' then
                by_change_id[change_id] = change
            end
        elseif pending[1] ~= change[1] or pending[3] ~= change[3] or not is_same_map(pending[4], change[4]) then
            conflicts[#conflicts + 1] = i
        end
    end
    return new, conflicts
end

-- Appends what is new of the changes; gives what `sort_out` does.
local function append(queue, changes)
    local new, conflicts = sort_out(queue, changes)
    local new_change_ids = {}
    local number = redis.call('HINCRBY', queue.queue, 'change', #new) - #new
    local lists, completion_ids = {}, {}
    for i, position in ipairs(new) do
        local completion_id, change_id, mode, metadata = unpack(changes[position])
        if not lists[completion_id] then
            lists[completion_id] = {}
            completion_ids[#completion_ids + 1] = completion_id
        end
        local list = lists[completion_id]
        list[#list + 1] = cmsgpack.pack({number + i, queue.now, change_id, mode, metadata})
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
    write('ZADD', queue.due, due)
    write('ZADD', queue.oldest, oldest)
    write('HSET', queue.change_ids, new_change_ids)
    redis.call('HINCRBY', queue.queue, 'pending', #new)
    if #new > 0 then
        redis.call('XADD', queue.news, 'MAXLEN', 1, '*', 'put', #new)
    end
    return new, conflicts
end

-- Counted from 0.
local function positions(found)
    for i, position in ipairs(found) do
        found[i] = position - 1
    end
    return found
end

-- ARGV: changes [[completion_id, change_id, mode, metadata]]. Gives how many were stored, then the positions of conflicts.
local function put(keys, args)
    local new, conflicts = append(queue_at(keys[1]), cmsgpack.unpack(args[1]))
    local reply = positions(conflicts)
    table.insert(reply, 1, #new)
    return reply
end

-- ARGV: changes, as above. Gives the positions of conflicts; stores nothing.
local function conflicts(keys, args)
    local _, found = sort_out(queue_at(keys[1]), cmsgpack.unpack(args[1]))
    return positions(found)
end

register('put', put)
register('conflicts', conflicts, 'no-writes')
