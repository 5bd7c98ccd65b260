-- Leasing targets. Functions that empty a queue also run without free memory: allow-oom.

-- Releases the targets of a claim whose answer was lost: all that it took and no worker has extended become due at the
-- same time.
local function give_back(queue, lease, deadline)
    for _, set in ipairs({queue.due, queue.urgent}) do -- it may have become urgent since
        local completion_ids = redis.call('ZRANGE', set, deadline, deadline, 'BYSCORE')
        local lost, due = {}, {}
        for i, held_by in ipairs(read('HMGET', queue.lease, completion_ids)) do
            if lease_number(held_by) == tonumber(lease) then
                lost[#lost + 1] = completion_ids[i]
                push(due, queue.now, completion_ids[i])
            end
        end
        write('HDEL', queue.lease, lost)
        write('ZADD', set, due)
    end
end

-- The next lease number. A promoted replica or a restored file may not know the last ones: a counter alone would give
-- them again, but the time has moved on.
local function next_lease(queue)
    local lease = math.max(tonumber(redis.call('HGET', queue.queue, 'lease') or 0) + 1, queue.now)
    redis.call('HSET', queue.queue, 'lease', lease)
    return lease
end

-- Returns the first changes up to this total size, at least one; and their size.
local function within(changes, in_bytes)
    local bytes = 0
    for i, change in ipairs(changes) do
        if i > 1 and bytes + #change > in_bytes then
            return {unpack(changes, 1, i - 1)}, bytes
        end
        bytes = bytes + #change
    end
    return changes, bytes
end

-- Returns the completion_ids to claim.
local function due_at(queue, set, place, limit)
    if place == 'oldest' or place == 'urgent' or limit == 0 then
        return redis.call('ZRANGE', set, '-inf', queue.now, 'BYSCORE', 'LIMIT', 0, limit)
    end
    local due = redis.call('ZCOUNT', set, '-inf', queue.now)
    if due == 0 then
        return {}
    end
    if place == 'newest' then -- what was tried and put back is due later than what came meanwhile
        local recent = redis.call('LRANGE', queue.recent, 0, -1)
        for i, visible_at in ipairs(read('ZMSCORE', set, recent)) do
            if visible_at and tonumber(visible_at) <= queue.now then
                return {recent[i]}
            end
        end
    end
    local rank = place == 'middle' and math.floor(due / 2) or due - 1
    return redis.call('ZRANGE', set, rank, rank)
end

-- ARGV: limit; lease in microseconds; most changes of a claim, most changes and most bytes of all; caller; number of
-- this call; the last lease whose answer the caller got; place; greatest age of confirmed maps in microseconds, 0 for
-- no maps; the last number of that log that the caller knows; owner. Gives [now, lease, [[completion_id, [change]]],
-- [new entries of the log]].
local function claim(keys, args)
    local queue = queue_at(keys[1])
    local limit, lease_us, per_claim = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
    local in_all, in_bytes = tonumber(args[4]), tonumber(args[5])
    local caller, number, answered, place = queue.caller .. args[6], tonumber(args[7]), args[8], args[9]
    local confirmed_us, log_number = tonumber(args[10]), tonumber(args[11])
    local last = redis.call('HMGET', caller, 'number', 'lease', 'deadline')
    if last[1] and number < tonumber(last[1]) then -- it was under way for long, and its caller has not waited for it
        limit = 0
    elseif last[1] and tonumber(last[2]) > tonumber(answered) then
        -- A lower one was heard: this server has lost the claims after it, as a replica that took over.
        give_back(queue, last[2], last[3])
    end

    local set = place == 'urgent' and queue.urgent or queue.due
    local due = due_at(queue, set, place, limit)
    if #due == 0 and limit > 0 and heal(queue) then
        due = due_at(queue, set, place, limit)
    end
    if #due == 0 then
        return array({cmsgpack.pack(queue.now), cmsgpack.pack(0), array({}), array({})})
    end
    local lease, deadline = next_lease(queue), queue.now + lease_us
    local held = string.format('%.0f %s', lease, args[12])
    local claims, leases, deadlines, evicted, carried, bytes = {}, {}, {}, {}, 0, 0
    local is_merged = false -- whether a claim builds upon what is there
    for _, completion_id in ipairs(due) do
        local changes = redis.call('LRANGE', queue.changes .. completion_id, 0, per_claim - 1)
        local fitting, size = within(changes, in_bytes)
        carried, bytes = carried + #changes, bytes + size
        if #changes == 0 then -- a server that evicts keys has thrown them away
            evicted[#evicted + 1] = completion_id
        elseif #claims > 0 and (carried > in_all or bytes > in_bytes or #fitting < #changes) then
            break
        else
            claims[#claims + 1] = array({cmsgpack.pack(completion_id), array(fitting)})
            push(leases, completion_id, held)
            is_merged = is_merged or confirmed_us > 0 and cmsgpack.unpack(changes[1])[4] == 'merge'
            push(deadlines, deadline, completion_id)
        end
    end
    write('HSET', queue.lease, leases)
    write('ZADD', set, deadlines)
    forget(queue, evicted)
    redis.call('HSET', caller, 'number', number, 'lease', lease, 'deadline', deadline)
    redis.call('PEXPIRE', caller, math.ceil(lease_us / 1000))
    local news = is_merged and confirmed_news(queue, log_number, queue.now - confirmed_us) or array({})
    return array({cmsgpack.pack(queue.now), cmsgpack.pack(lease), array(claims), news})
end

-- ARGV: claims [[completion_id, lease]], lease in microseconds. Gives the positions of those that are lost.
local function extend(keys, args)
    local queue, claims = queue_at(keys[1]), cmsgpack.unpack(args[1])
    local leases, deadline = held(queue, claims), queue.now + tonumber(args[2])
    local extended, lost = {}, {}
    for position, claimed in ipairs(claims) do
        local completion_id, lease = unpack(claimed)
        if leases[completion_id] == lease then
            extended[#extended + 1] = completion_id
        else
            lost[#lost + 1] = position - 1
        end
    end
    local urgent, deadlines, urgent_deadlines = urgent_among(queue, extended), {}, {}
    for _, completion_id in ipairs(extended) do
        push(urgent[completion_id] and urgent_deadlines or deadlines, deadline, completion_id)
    end
    write('ZADD', queue.due, deadlines)
    write('ZADD', queue.urgent, urgent_deadlines)
    heal(queue) -- a worker that is never short of work claims nothing in vain
    return lost
end

register('claim', claim, 'allow-oom')
register('extend', extend, 'allow-oom')
