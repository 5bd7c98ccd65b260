-- Storing changes.

-- Appends [completion_id, change_id, mode, metadata], but for those whose change_id is pending, here or already.
-- Gives the positions of what is new.
local function append(shard, changes, index, shards)
    local next_number, keep = numbering(shard, 'change', index, shards)
    local change_ids, new, new_change_ids = {}, {}, {}
    for i, change in ipairs(changes) do
        change_ids[i] = change[2]
    end
    local is_pending = read('SMISMEMBER', shard.change_ids, change_ids)
    local lists, completion_ids, seen = {}, {}, {}
    for i, change in ipairs(changes) do
        local completion_id, change_id, mode, metadata = unpack(change)
        if is_pending[i] == 0 and not seen[change_id] then
            if change_id ~= '' then
                seen[change_id] = true
                new_change_ids[#new_change_ids + 1] = change_id
            end
            if not lists[completion_id] then
                lists[completion_id] = {}
                completion_ids[#completion_ids + 1] = completion_id
            end
            local list = lists[completion_id]
            list[#list + 1] = cmsgpack.pack({next_number(), shard.now, change_id, mode, metadata})
            new[#new + 1] = i
        end
    end
    local fresh, due, oldest = {}, {}, {}
    for _, completion_id in ipairs(completion_ids) do
        local list = lists[completion_id]
        if write('RPUSH', shard.changes .. completion_id, list) == #list then
            fresh[#fresh + 1] = completion_id
        end
    end
    for i, completion_id in ipairs(fresh) do
        push(due, shard.now - #fresh + i, completion_id) -- a microsecond apart, to be claimed in their order
        push(oldest, shard.now, completion_id)
    end
    write('ZADD', shard.due, due)
    write('ZADD', shard.oldest, oldest)
    write('SADD', shard.change_ids, new_change_ids)
    if #new > 0 then
        keep()
        redis.call('HINCRBY', shard.counter, 'pending', #new)
    end
    return new
end

-- ARGV: changes [[completion_id, change_id, mode, metadata]], index of the shard, number of shards.
-- Gives how many were stored.
local function put(keys, args)
    local new = append(shard_at(keys[1]), cmsgpack.unpack(args[1]), tonumber(args[2]), tonumber(args[3]))
    return #new
end

register('put', put)
