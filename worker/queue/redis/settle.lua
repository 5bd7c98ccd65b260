-- Ending leases.

local TOLD_MS = 24 * 60 * 60 * 1000 -- how long a caller may take to ask what became of a call

-- Takes the changes that are done off the head of the list, and notes the trials of others by number; gives those that
-- are done by number, how many they are, and adds the change_ids that go.
local function remove(queue, completion_id, claimed, done, trials, change_ids)
    local is_done, removed, count, kept = {}, {}, 0, {}
    for _, number in ipairs(done) do
        is_done[number] = true
    end
    local list = queue.changes .. completion_id
    local changes = redis.call('LPOP', list, claimed) or {}
    for i = #changes, 1, -1 do
        local change = cmsgpack.unpack(changes[i])
        local number, change_id = change[1], change[3]
        if not is_done[number] then
            change[6] = trials[number] or change[6]
            kept[#kept + 1] = trials[number] and cmsgpack.pack(change) or changes[i]
        else
            removed[number] = changes[i]
            count = count + 1
            if change_id ~= '' then
                change_ids[#change_ids + 1] = change_id
            end
        end
    end
    write('LPUSH', list, kept)
    return removed, count
end

-- ARGV: settlements [[completion_id, lease, number of claimed changes, [number that is done], [[number, reason, fate]]
-- of the dead among them, delay in microseconds, [number, trials, ...], how many are applied, and how many unchanged, the map
-- that was confirmed or '']], for how many microseconds to keep those maps, 0 for not at all, and how many of them.
-- Then who calls, and the number of this call; the packed arrays of the numbers of calls whose answers it has, and of
-- those whose answers it has not. Gives 1 if maps had to go before their time, else 0; the positions of those that are
-- stale; and of each call whose answer was lost the positions that were stale in it, packed, or nothing if it never came.
local function settle(keys, args)
    local queue, settlements = queue_at(keys[1]), cmsgpack.unpack(args[1])
    local leases = held(queue, settlements)
    local stale, finished, kept, change_ids, is_cut_short = {}, {}, {}, {}, 0
    local keep_us, confirmed_ids, maps = tonumber(args[2]), {}, {}
    local due, oldest = {}, {}
    local all_done, all_applied, all_unchanged = 0, 0, 0
    for position, settlement in ipairs(settlements) do
        local completion_id, lease, claimed, done, deaths, delay_us, noted, applied, unchanged, map =
            unpack(settlement)
        if leases[completion_id] ~= lease then
            stale[#stale + 1] = position - 1
        else
            leases[completion_id] = nil -- of several words about one claim, the first counts
            if #done + #noted > 0 then
                local trials = {}
                for i = 1, #noted, 2 do
                    trials[noted[i]] = noted[i + 1]
                end
                local removed, count = remove(queue, completion_id, claimed, done, trials, change_ids)
                for _, death in ipairs(deaths) do
                    local number, reason, fate = unpack(death)
                    if removed[number] then -- else it was evicted
                        bury(queue, completion_id, removed[number], reason, fate)
                    end
                end
                all_done = all_done + count
                all_applied, all_unchanged = all_applied + applied, all_unchanged + unchanged
            end
            if keep_us > 0 and map ~= '' then
                confirmed_ids[#confirmed_ids + 1], maps[#maps + 1] = completion_id, map
            end
            local first = redis.call('LINDEX', queue.changes .. completion_id, 0)
            if not first then
                finished[#finished + 1] = completion_id
            else
                kept[#kept + 1] = completion_id
                push(due, queue.now + delay_us, completion_id)
                push(oldest, cmsgpack.unpack(first)[2], completion_id)
            end
        end
    end
    forget(queue, finished)
    write('HDEL', queue.lease, kept)
    write('ZADD', queue.due, due)
    write('ZADD', queue.oldest, oldest)
    write('HDEL', queue.change_ids, change_ids)
    if all_done > 0 then
        redis.call('HINCRBY', queue.queue, 'pending', -all_done)
        remember(queue, all_applied, all_unchanged, math.max(0, all_done - all_applied - all_unchanged))
    end
    if #maps > 0 then
        is_cut_short = append_confirmed(queue, confirmed_ids, maps, keep_us, tonumber(args[3]))
    end
    local told = queue.told .. args[4]
    local lost = read('HMGET', told, cmsgpack.unpack(args[7]))
    write('HDEL', told, cmsgpack.unpack(args[6]))
    redis.call('HSET', told, args[5], cmsgpack.pack(stale))
    redis.call('PEXPIRE', told, TOLD_MS)
    return {is_cut_short, stale, lost}
end

register('settle', settle, 'allow-oom')
