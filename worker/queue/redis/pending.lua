-- Pending changes: reading and withdrawing them in pieces.

local AT_ONCE = 500 -- changes that one call examines

-- ARGV: a cursor, '0' at first. Gives the next one, '0' at the end, and completion_ids that have pending changes, any of
-- them perhaps twice.
local function pending_ids(keys, args)
    -- Those that are there throughout lie in this set throughout, whether they are urgent or not.
    local found = redis.call('ZSCAN', queue_at(keys[1]).oldest, args[1], 'COUNT', 100)
    local completion_ids = {}
    for i = 1, #found[2], 2 do
        completion_ids[#completion_ids + 1] = found[2][i]
    end
    return {found[1], completion_ids}
end

-- ARGV: change_id. Gives the number and the completion_id of the pending change that has it, or nothing.
local function pending_of(keys, args)
    local place = redis.call('HGET', queue_at(keys[1]).change_ids, args[1])
    return place and {number_and_completion(place)} or {}
end

-- A change that has this change_id and this batch, '' for any, unpacked; nil for another one.
local function meant(stored, change_id, batch)
    -- Most are of another batch: to find out so costs a fraction of unpacking them.
    if not string.find(stored, batch, 1, true) then
        return nil
    end
    local change = cmsgpack.unpack(stored)
    if (change_id == '' or change[3] == change_id) and (batch == '' or change[8] == batch) then
        return change
    end
end

-- Goes through the changes of the wanted completions, [[completion_id, number that the changes are above]], until it
-- has met AT_ONCE of them. Calls visit for each completion, with the place of its first change in the list, and with
-- the stored changes. Gives the rest in the form of wanted.
local function look_through(queue, wanted, visit)
    local room, left = AT_ONCE, {}
    for _, each in ipairs(wanted) do
        local completion_id, after = unpack(each)
        if room == 0 then
            left[#left + 1] = each
        else
            local list = queue.changes .. completion_id
            local first = after > 0 and index_above(list, after) or 0
            local stored = redis.call('LRANGE', list, first, first + room - 1)
            visit(completion_id, first, stored)
            room = room - #stored
            if room == 0 then
                left[1] = {completion_id, cmsgpack.unpack(stored[#stored])[1]}
            end
        end
    end
    return left
end

-- ARGV: wanted [[completion_id, number]], as above; the change_id and the batch that changes have to have, or ''. Gives
-- [what is left, [[change] of each completion that was looked at]].
local function pending(keys, args)
    local found = {}
    local left = look_through(queue_at(keys[1]), cmsgpack.unpack(args[1]), function(_, _, stored)
        local page = {}
        for _, change in ipairs(stored) do
            if meant(change, args[2], args[3]) then
                page[#page + 1] = change
            end
        end
        found[#found + 1] = array(page)
    end)
    return array({cmsgpack.pack(left), array(found)})
end

-- Those of these completions whose lease runs, by completion_id.
local function leased_among(queue, wanted)
    local completion_ids, is_leased = {}, {}
    for completion_id, lease in pairs(held(queue, wanted)) do
        completion_ids[#completion_ids + 1] = lease and completion_id or nil
    end
    for _, set in ipairs({queue.due, queue.urgent}) do
        for i, visible_at in ipairs(read('ZMSCORE', set, completion_ids)) do
            is_leased[completion_ids[i]] = is_leased[completion_ids[i]] or visible_at and tonumber(visible_at) > queue.now
        end
    end
    return is_leased
end

-- Removes changes from a list, given their positions and, if they are at the head, the changes between them to keep, the
-- last first.
local function take_out(list, first, places, changes, kept)
    if first == 0 then
        redis.call('LPOP', list, changes)
        write('LPUSH', list, kept)
        return
    end
    for _, place in ipairs(places) do
        redis.call('LSET', list, place, '')
    end
    redis.call('LREM', list, 0, '')
end

-- These completions have lost changes, so many of them urgent, by completion_id. Ends leases that ran out. Completions
-- with changes left are due in the right set.
local function mend(queue, urgent_gone)
    local completion_ids, finished, oldest, left = keys_of(urgent_gone), {}, {}, {}
    for _, completion_id in ipairs(completion_ids) do
        local first = redis.call('LINDEX', queue.changes .. completion_id, 0)
        if first then
            push(oldest, cmsgpack.unpack(first)[2], completion_id)
            left[completion_id] = urgent_gone[completion_id]
        else
            finished[#finished + 1] = completion_id
        end
    end
    forget(queue, finished)
    write('HDEL', queue.lease, completion_ids)
    write('ZADD', queue.oldest, oldest)
    local urgent, gone, due = urgent_among(queue, keys_of(left)), {}, {}
    for completion_id in pairs(urgent) do
        gone[completion_id] = left[completion_id] > 0 and left[completion_id] or nil
    end
    for completion_id in pairs(take_urgent(queue, gone)) do
        push(due, urgent[completion_id], completion_id)
    end
    write('ZADD', queue.due, due)
end

-- ARGV: as those of `pending`. Gives, packed, [the rest, how many were withdrawn, [[completion_id, how many of its
-- changes were selected]] of completions that a worker holds].
local function withdraw(keys, args)
    local queue, wanted = queue_at(keys[1]), cmsgpack.unpack(args[1])
    local is_leased, in_flight, withdrawn, change_ids = leased_among(queue, wanted), {}, 0, {}
    local urgent_gone, batches = {}, {}
    local left = look_through(queue, wanted, function(completion_id, first, stored)
        local places, kept, urgent = {}, {}, 0
        for i = #stored, 1, -1 do
            local change = meant(stored[i], args[2], args[3])
            if not change then
                kept[#kept + 1] = stored[i]
            else
                places[#places + 1] = first + i - 1
                if not is_leased[completion_id] then
                    urgent = urgent + (change[9] and 1 or 0)
                    if change[3] ~= '' then
                        change_ids[#change_ids + 1] = change[3]
                    end
                    if change[8] then
                        local counts = counts_of(batches, change[8])
                        counts[COUNTS] = counts[COUNTS] + 1
                    end
                end
            end
        end
        if #places > 0 and is_leased[completion_id] then
            in_flight[#in_flight + 1] = {completion_id, #places}
        elseif #places > 0 then
            withdrawn = withdrawn + #places
            take_out(queue.changes .. completion_id, first, places, #stored, kept)
            urgent_gone[completion_id] = urgent
        end
    end)
    if withdrawn > 0 then
        mend(queue, urgent_gone)
        write('HDEL', queue.change_ids, change_ids)
        redis.call('HINCRBY', queue.queue, 'pending', -withdrawn)
        count_in_batches(queue, batches)
        record(queue, {0, 0, 0, 0, withdrawn})
    end
    return cmsgpack.pack({left, withdrawn, in_flight})
end

register('pending_ids', pending_ids, 'no-writes')
register('pending_of', pending_of, 'no-writes')
register('pending', pending, 'no-writes')
register('withdraw', withdraw, 'allow-oom')
