-- Dead letters: reading, retrying, purging.

-- ARGV: selection [the letters' numbers are above this, and not above this, how many letters to look at, numbers or
-- nil, completion_id or nil, reason or nil]. Gives the number of the last letter looked at, 0 for none; and those
-- that match, each as it is stored.
local function selected(shard, selection)
    local after, until_number, limit = selection[1], selection[2], selection[3]
    local numbers, completion_id, reason = selection[4], selection[5], selection[6]
    if not numbers then
        local index = shard.dead
        if completion_id then
            index = shard.dead_completion .. completion_id
        elseif reason then
            index = shard.dead_reason .. reason
        end
        numbers = redis.call('ZRANGE', index, after + 1, until_number, 'BYSCORE', 'LIMIT', 0, limit)
    end
    local letters = {}
    for _, number in ipairs(numbers) do
        local packed = redis.call('HGET', shard.letter, number)
        if packed then
            local letter = cmsgpack.unpack(packed)
            local letter_reason = cjson.decode(letter[5])[1]
            if (not completion_id or letter[3] == completion_id) and (not reason or letter_reason == reason) then
                letters[#letters + 1] = {packed = packed, content = letter, reason = letter_reason}
            end
        end
    end
    return tonumber(numbers[#numbers] or 0), letters
end

local function delete(shard, letter)
    local number, _, completion_id = unpack(letter.content)
    redis.call('HDEL', shard.letter, number)
    redis.call('ZREM', shard.dead, number)
    redis.call('ZREM', shard.dead_reason .. letter.reason, number)
    redis.call('ZREM', shard.dead_completion .. completion_id, number)
end

-- ARGV: selection. Gives [last, [letter]].
local function dead_letters(keys, args)
    local last, letters = selected(shard_at(keys[1]), cmsgpack.unpack(args[1]))
    local packed = {}
    for i, letter in ipairs(letters) do
        packed[i] = letter.packed
    end
    return array({cmsgpack.pack(last), array(packed)})
end

-- ARGV: selection, index of the shard, number of shards. Gives [last, retried, kept].
local function retry_dead(keys, args)
    local shard = shard_at(keys[1])
    local last, letters = selected(shard, cmsgpack.unpack(args[1]))
    local changes = {}
    for i, letter in ipairs(letters) do
        local _, _, change_id, mode, metadata = unpack(letter.content[4])
        changes[i] = {letter.content[3], change_id, mode, metadata}
    end
    local retried = append(shard, changes, tonumber(args[2]), tonumber(args[3]))
    for _, i in ipairs(retried) do
        delete(shard, letters[i])
    end
    return cmsgpack.pack({last, #retried, #letters - #retried})
end

-- ARGV: selection. Gives [last, purged, 0].
local function purge_dead(keys, args)
    local shard = shard_at(keys[1])
    local last, letters = selected(shard, cmsgpack.unpack(args[1]))
    for _, letter in ipairs(letters) do
        delete(shard, letter)
    end
    return cmsgpack.pack({last, #letters, 0})
end

-- Gives the last dead letter's number, 0 when there is none.
local function newest_dead(keys)
    return tonumber(redis.call('ZRANGE', shard_at(keys[1]).dead, -1, -1)[1] or 0)
end

register('dead_letters', dead_letters, 'no-writes')
register('retry_dead', retry_dead)
register('purge_dead', purge_dead, 'allow-oom')
register('newest_dead', newest_dead, 'no-writes')
