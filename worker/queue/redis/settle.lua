-- Ending leases.

local HISTORY_MINUTES = 60

local function bury(shard, number, completion_id, change, reason, fate)
    local letter = {cmsgpack.pack(number), cmsgpack.pack(shard.now), cmsgpack.pack(completion_id), change}
    letter[#letter + 1] = cmsgpack.pack(fate)
    redis.call('HSET', shard.letter, number, array(letter))
    redis.call('ZADD', shard.dead, number, number)
    redis.call('ZADD', shard.dead_reason .. reason, number, number)
    redis.call('ZADD', shard.dead_completion .. completion_id, number, number)
end

-- Takes the changes that are done off the head of the list; gives those by number, and the change_ids that go.
local function remove(shard, completion_id, claimed, done, change_ids)
    local is_done, removed, count, kept = {}, {}, 0, {}
    for _, number in ipairs(done) do
        is_done[number] = true
    end
    local list = shard.changes .. completion_id
    for _, change in ipairs(redis.call('LPOP', list, claimed) or {}) do
        local number, _, change_id = unpack(cmsgpack.unpack(change))
        if not is_done[number] then
            kept[#kept + 1] = change
        else
            removed[number] = change
            count = count + 1
            if change_id ~= '' then
                change_ids[#change_ids + 1] = change_id
            end
        end
    end
    for i = #kept, 1, -1 do
        redis.call('LPUSH', list, kept[i])
    end
    return removed, count
end

local function count_done(shard, done)
    redis.call('HINCRBY', shard.counter, 'pending', -done)
    local minute = math.floor(shard.now / 60000000)
    if redis.call('HINCRBY', shard.history, minute, done) > done then
        return
    end
    for _, earlier in ipairs(redis.call('HKEYS', shard.history)) do -- with each new minute, the old ones go
        if tonumber(earlier) < minute - HISTORY_MINUTES then
            redis.call('HDEL', shard.history, earlier)
        end
    end
end

-- ARGV: settlements [[completion_id, lease, number of claimed changes, [number that is done],
-- [[number, reason, fate]] of the dead among them, delay in microseconds, attempts, error, how many are applied, and how
-- many unchanged]], index of the shard, number of shards. Gives the positions of those that are stale.
local function settle(keys, args)
    local shard, settlements = shard_at(keys[1]), cmsgpack.unpack(args[1])
    local next_number, keep = numbering(shard, 'letter', tonumber(args[2]), tonumber(args[3]))
    local leases = held(shard, settlements)
    local stale, finished, kept, change_ids, all_done = {}, {}, {}, {}, 0
    local all_applied, all_unchanged = 0, 0
    local due, oldest, failures = {}, {}, {}
    for position, settlement in ipairs(settlements) do
        local completion_id, lease, claimed, done, deaths, delay_us, attempts, last_error, applied, unchanged =
            unpack(settlement)
        if leases[completion_id] ~= lease then
            stale[#stale + 1] = position - 1
        else
            leases[completion_id] = nil -- of several words about one claim, the first counts
            if #done > 0 then
                local removed, count = remove(shard, completion_id, claimed, done, change_ids)
                for _, death in ipairs(deaths) do
                    local number, reason, fate = unpack(death)
                    if removed[number] then -- else it was evicted
                        bury(shard, next_number(), completion_id, removed[number], reason, fate)
                    end
                end
                all_done = all_done + count
                all_applied, all_unchanged = all_applied + applied, all_unchanged + unchanged
            end
            local first = redis.call('LINDEX', shard.changes .. completion_id, 0)
            if not first then
                finished[#finished + 1] = completion_id
            else
                local _, enqueued_at = unpack(cmsgpack.unpack(first))
                kept[#kept + 1] = completion_id
                push(due, shard.now + delay_us, completion_id)
                push(oldest, enqueued_at, completion_id)
                push(failures, completion_id, cmsgpack.pack(attempts, last_error))
            end
        end
    end
    forget(shard, finished)
    write('HDEL', shard.lease, kept)
    write('HSET', shard.failure, failures)
    write('ZADD', shard.due, due)
    write('ZADD', shard.oldest, oldest)
    write('SREM', shard.change_ids, change_ids)
    if all_done > 0 then
        keep()
        count_done(shard, all_done)
        remember_done(shard, all_applied, all_unchanged, math.max(0, all_done - all_applied - all_unchanged))
    end
    return stale
end

register('settle', settle, 'allow-oom')
