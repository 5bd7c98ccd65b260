-- Leasing targets. What empties a queue goes on where the memory is used up: allow-oom.

local MAX_CHANGES_PER_CALL = 10000 -- a claim ends early where it would carry more than this,
local MAX_BYTES_PER_CALL = 8000000 -- or more than this

-- A caller numbers its claims, and says which was the last whose answer it got. What a later one took is made due
-- again: all that it took and nobody has extended is due at one and the same time.
local function give_back(shard, caller, answered)
    local claim = redis.call('HMGET', shard.caller .. caller, 'number', 'lease', 'deadline')
    if not claim[1] or tonumber(claim[1]) <= answered then
        return
    end
    local completion_ids = redis.call('ZRANGE', shard.due, claim[3], claim[3], 'BYSCORE')
    local lost, due = {}, {}
    for i, lease in ipairs(leases_of(shard, completion_ids)) do
        if lease == tonumber(claim[2]) then
            lost[#lost + 1] = completion_ids[i]
            push(due, shard.now, completion_ids[i])
        end
    end
    write('HDEL', shard.lease, lost)
    write('ZADD', shard.due, due)
end

local function remember(shard, caller, number, lease, deadline, lease_us)
    local key = shard.caller .. caller
    redis.call('HSET', key, 'number', number, 'lease', lease, 'deadline', deadline)
    redis.call('PEXPIRE', key, math.ceil(lease_us / 1000))
end

local function size_of(changes)
    local bytes = 0
    for _, change in ipairs(changes) do
        bytes = bytes + #change
    end
    return bytes
end

-- ARGV: limit, lease in microseconds, owner, changes a claim may carry, caller, number of this call, number of the
-- last call that was answered. Gives [now, lease, [[completion_id, attempts, [change]]]].
local function claim(keys, args)
    local shard = shard_at(keys[1])
    local limit, lease_us, owner, per_claim = tonumber(args[1]), tonumber(args[2]), args[3], tonumber(args[4])
    local caller, number, answered = args[5], args[6], tonumber(args[7])
    give_back(shard, caller, answered)

    local due = redis.call('ZRANGE', shard.due, '-inf', shard.now, 'BYSCORE', 'LIMIT', 0, limit)
    if #due == 0 then
        return array({cmsgpack.pack(shard.now), cmsgpack.pack(0), array({})})
    end
    local lease, deadline = redis.call('HINCRBY', shard.counter, 'lease', 1), shard.now + lease_us
    local held_by = cmsgpack.pack(lease, owner)
    local failures = read('HMGET', shard.failure, due)
    local claims, leases, deadlines, evicted, carried, bytes = {}, {}, {}, {}, 0, 0
    for i, completion_id in ipairs(due) do
        local changes = redis.call('LRANGE', shard.changes .. completion_id, 0, per_claim - 1)
        carried, bytes = carried + #changes, bytes + size_of(changes)
        if #changes == 0 then -- a server that evicts keys has thrown them away
            evicted[#evicted + 1] = completion_id
        elseif #claims > 0 and (carried > MAX_CHANGES_PER_CALL or bytes > MAX_BYTES_PER_CALL) then
            break
        else
            local attempts = failures[i] and cmsgpack.unpack(failures[i]) or 0
            claims[#claims + 1] = array({cmsgpack.pack(completion_id), cmsgpack.pack(attempts), array(changes)})
            push(leases, completion_id, held_by)
            push(deadlines, deadline, completion_id)
        end
    end
    write('HSET', shard.lease, leases)
    write('ZADD', shard.due, deadlines)
    forget(shard, evicted)
    if #claims > 0 then
        remember(shard, caller, number, lease, deadline, lease_us)
    end
    return array({cmsgpack.pack(shard.now), cmsgpack.pack(lease), array(claims)})
end

-- ARGV: claims [[completion_id, lease]], lease in microseconds. Gives the positions of those that are lost.
local function extend(keys, args)
    local shard, claims = shard_at(keys[1]), cmsgpack.unpack(args[1])
    local leases, deadline = held(shard, claims), shard.now + tonumber(args[2])
    local deadlines, lost = {}, {}
    for position, claimed in ipairs(claims) do
        local completion_id, lease = unpack(claimed)
        if leases[completion_id] == lease then
            push(deadlines, deadline, completion_id)
        else
            lost[#lost + 1] = position - 1
        end
    end
    write('ZADD', shard.due, deadlines)
    return lost
end

register('claim', claim, 'allow-oom')
register('extend', extend, 'allow-oom')
