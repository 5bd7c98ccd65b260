-- Notes that workers leave; they lie in shard 0.

-- ARGV: name, and the text unless the note is to go.
local function write_note(keys, args)
    local shard = shard_at(keys[1])
    if args[2] then
        redis.call('HSET', shard.note, args[1], cmsgpack.pack({args[2], shard.now}))
    else
        redis.call('HDEL', shard.note, args[1])
    end
end

-- Gives [now, [[name, [text, written_at]]]].
local function read_notes(keys)
    local shard = shard_at(keys[1])
    local found, notes = redis.call('HGETALL', shard.note), {}
    for i = 1, #found, 2 do
        notes[#notes + 1] = array({cmsgpack.pack(found[i]), found[i + 1]})
    end
    return array({cmsgpack.pack(shard.now), array(notes)})
end

register('write_note', write_note, 'allow-oom')
register('read_notes', read_notes, 'no-writes')
