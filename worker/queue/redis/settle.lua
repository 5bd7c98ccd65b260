-- Ending leases.

local TOLD_MS = 24 * 60 * 60 * 1000 -- how long a caller may take to ask what became of a call

-- Takes the done changes off the head of the list, and notes the trials of others by number. Gives the done changes by
-- number, as stored and unpacked, and how many of them were urgent; adds their change_ids.
local function remove(queue, completion_id, claimed, done, trials, change_ids)
    local is_done, stored, removed, kept, urgent = {}, {}, {}, {}, 0
    for _, number in ipairs(done) do
        is_done[number] = true
    end
    local list = queue.changes .. completion_id
    local changes = redis.call('LPOP', list, claimed) or {}
    for i = #changes, 1, -1 do
        local change = cmsgpack.unpack(changes[i])
        local number = change[1]
        if not is_done[number] then
            change[6] = trials[number] or change[6]
            kept[#kept + 1] = trials[number] and cmsgpack.pack(change) or changes[i]
        else
            stored[number] = changes[i]
            removed[#removed + 1] = change
            if change[3] ~= '' then
                change_ids[#change_ids + 1] = change[3]
            end
            if change[9] then
                urgent = urgent + 1
            end
        end
    end
    write('LPUSH', list, kept)
    return stored, removed, urgent
end

-- Completions have changes left, and are due after these delays, by completion_id. So many of their urgent changes are
-- gone, by completion_id.
local function let_wait(queue, delays, urgent, urgent_gone)
    local usual, due, urgent_due = take_urgent(queue, urgent_gone), {}, {}
    for completion_id, delay_us in pairs(delays) do
        local is_urgent = urgent[completion_id] and not usual[completion_id]
        push(is_urgent and urgent_due or due, queue.now + delay_us, completion_id)
    end
    write('HDEL', queue.lease, keys_of(delays))
    write('ZADD', queue.due, due)
    write('ZADD', queue.urgent, urgent_due)
end

-- Notes in `newest` and `change_ids` what is to be remembered of changes that are done.
local function note(completion_id, removed, is_dead, superseded, newest, change_ids)
    local is_superseded = {}
    for _, number in ipairs(superseded) do
        is_superseded[number] = true
    end
    for _, change in ipairs(removed) do
        local number, _, change_id, _, _, _, as_of = unpack(change)
        if not is_dead[number] then
            if change_id ~= '' then
                change_ids[#change_ids + 1] = change_id
            end
            if as_of and not is_superseded[number] then
                newest[completion_id] = math.max(newest[completion_id] or 0, as_of)
            end
        end
    end
end

-- ARGV: settlements, for how many microseconds to keep the confirmed maps (0: not at all), and how many of them; the
-- caller, the number of this call, the packed numbers of calls whose answers it has, and of those whose answers it has
-- not; '1' to remember what is done.
-- A settlement is [completion_id, lease, number of claimed changes, [number of a done change], [[number, reason, fate]]
-- of the dead among them, delay in microseconds, [number, trials, ...], how many are applied, how many unchanged, the
-- confirmed map or '', [number of a superseded change], and with batches [name, how many of its changes are applied,
-- unchanged, superseded and dead, ...]].
-- Gives 1 if maps had to go before their time, otherwise 0; the positions of stale settlements; and for each call with
-- a lost answer the positions that were stale in it, packed, or nothing if it never came.
local function settle(keys, args)
    local queue, settlements = queue_at(keys[1]), cmsgpack.unpack(args[1])
    local leases = held(queue, settlements)
    local urgent = urgent_among(queue, keys_of(leases))
    local stale, finished, change_ids, is_cut_short = {}, {}, {}, 0
    local keep_us, confirmed_ids, maps = tonumber(args[2]), {}, {}
    local delays, oldest, urgent_gone, batches = {}, {}, {}, {}
    local all_done, all_applied, all_unchanged, all_superseded = 0, 0, 0, 0
    local newest, settled = {}, {}
    for position, settlement in ipairs(settlements) do
        local completion_id, lease, claimed, done, deaths, delay_us, noted, applied, unchanged, map, superseded, ends =
            unpack(settlement)
        if leases[completion_id] ~= lease then
            stale[#stale + 1] = position - 1
        else
            leases[completion_id] = nil -- of several words about one claim, the first counts
            local gone = 0 -- of the urgent ones
            if #done + #noted > 0 then
                local trials, is_dead = {}, {}
                for i = 1, #noted, 2 do
                    trials[noted[i]] = noted[i + 1]
                end
                local stored, removed
                stored, removed, gone = remove(queue, completion_id, claimed, done, trials, change_ids)
                for _, death in ipairs(deaths) do
                    local number, reason, fate = unpack(death)
                    is_dead[number] = true
                    if stored[number] then -- else it was evicted
                        bury(queue, completion_id, stored[number], reason, fate)
                    end
                end
                if args[8] == '1' then
                    note(completion_id, removed, is_dead, superseded, newest, settled)
                end
                all_done = all_done + #removed
                all_applied, all_unchanged = all_applied + applied, all_unchanged + unchanged
                all_superseded = all_superseded + #superseded
            end
            for i = 1, #(ends or {}), 5 do
                local counts = counts_of(batches, ends[i])
                for count = 1, 4 do
                    counts[count + 1] = counts[count + 1] + ends[i + count]
                end
            end
            if keep_us > 0 and map ~= '' then
                confirmed_ids[#confirmed_ids + 1], maps[#maps + 1] = completion_id, map
            end
            local first = redis.call('LINDEX', queue.changes .. completion_id, 0)
            if not first then
                finished[#finished + 1] = completion_id
            else
                delays[completion_id] = delay_us
                push(oldest, cmsgpack.unpack(first)[2], completion_id)
                if gone > 0 and urgent[completion_id] then
                    urgent_gone[completion_id] = gone
                end
            end
        end
    end
    forget(queue, finished)
    let_wait(queue, delays, urgent, urgent_gone)
    write('ZADD', queue.oldest, oldest)
    write('HDEL', queue.change_ids, change_ids)
    if all_done > 0 then
        redis.call('HINCRBY', queue.queue, 'pending', -all_done)
        local all_dead = math.max(0, all_done - all_applied - all_unchanged - all_superseded)
        record(queue, {all_applied, all_unchanged, all_dead, all_superseded})
    end
    count_in_batches(queue, batches)
    remember_settled(queue, settled)
    remember_newest(queue, newest)
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
