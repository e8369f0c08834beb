-- Stores what the owner of a partition has done since the last commit: its progress, what was
-- emitted, and dead letters. All of it or nothing.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the group's progress, the feed
--       the group's dead letters, their order, their raw entries
--       those of what is emitted: see emit.lua
--
-- ARGV  the instance, the epoch, the number of the commit, the name of the group
--       flags:
--         r  the client waits for replicas, so that a repetition must write something
--         e  the epoch is not looked at      (both only to show that a test
--         n  nor the number                   finds what comes of it)
--       the checkpoint, the id of the event there, up to where everything is finished but for what is
--         open, what is open
--       how many entries were finished
--       the numbers of new dead letters, of those tried in vain, of those resolved, of partitions and
--         of appends
--       for each new dead letter: its name, how it stands in the order, itself, and the name of the one
--         that it follows, or nothing
--       for each that was tried in vain: its name, itself
--       for each that is resolved: its name, how it stands in the order
--       what is emitted: see emit.lua
--
-- Replies with a status, and
--   0 stored      the number of dead letters; why an event was not published, or nothing; what was
--                 stored: see emit.lua
--   1 repeated    the number of dead letters
--   2 lost        nothing
--   3 refused     see emit.lua
--   4 partitions  see emit.lua
--   5 full        see emit.lua

local STORED, REPEATED, LOST, REFUSED, PARTITIONS, FULL = 0, 1, 2, 3, 4, 5
local FIRST = 16

local progress, feed, dead, order, raw = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local number = tonumber(ARGV[3])
local group = ARGV[4]
local flags = ARGV[5]
local checkpoint = ARGV[6]
local finished = tonumber(ARGV[10])
local parked, retried, resolved = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local target_count, append_count = tonumber(ARGV[14]), tonumber(ARGV[15])

local waits, any_epoch, any_number = false, false, false
if flags ~= '' then
    waits = string.find(flags, 'r', 1, true)
    any_epoch = string.find(flags, 'e', 1, true)
    any_number = string.find(flags, 'n', 1, true)
end

local known = redis.call('HMGET', progress, 'owner', 'epoch', 'commit', 'checkpoint', 'finished')
if not any_epoch and (known[1] ~= ARGV[1] or known[2] ~= ARGV[2]) then return {LOST} end
local letters = redis.call('HLEN', dead)
if not any_number and number <= tonumber(known[3] or 0) then
    -- It must reach the replicas, too. They get what is written in order, so any write that comes
    -- after it does.
    if waits then redis.call('HSET', progress, 'commit', known[3]) end
    return {REPEATED, letters}
end
local finished_before = tonumber(known[5] or 0)
if parked + retried + resolved > 0 then
    redis.call('ZCARD', order)
    redis.call('HLEN', raw)
end

local at = FIRST + parked * 4 + retried * 2 + resolved * 2
local emits, refused, others, full = read_emits(at, 6, target_count, append_count)
if others then return {PARTITIONS, others[1], others[2]} end
if full then return {FULL, full} end
if refused then
    table.insert(refused, 1, REFUSED)
    return refused
end

-- From here on nothing may fail.

local reply = {STORED, letters, ''}
store_emits(emits, reply, 3)

local finished_now = string.format('%d', finished_before + finished)
-- Where nothing is read in order, the group is not opened, and stays so.
local is_known = known[4] or ARGV[8] ~= '0-0'
redis.call('HSET', progress, 'commit', ARGV[3])
if is_known then
    redis.call('HSET', progress, 'checkpoint', checkpoint, 'event', ARGV[7], 'reached', ARGV[8],
        'open', ARGV[9], 'finished', finished_now)
end

if parked + retried + resolved > 0 then
    -- First: what follows one that was tried in vain must stay behind it.
    at = FIRST + parked * 4
    for _ = 1, retried do
        -- One that was discarded meanwhile stays so.
        if redis.call('HEXISTS', dead, ARGV[at]) == 1 then
            redis.call('HSET', dead, ARGV[at], ARGV[at + 1])
        end
        at = at + 2
    end
    at = FIRST
    for _ = 1, parked do
        local letter, followed = ARGV[at + 2], ARGV[at + 3]
        if followed ~= '' then
            local before = redis.call('HGET', dead, followed)
            -- A quote within a text has a backslash before it, so this is the field itself.
            if not before or string.find(before, '"redrive"%s*:%s*true') then
                letter = string.gsub(letter, '"redrive"%s*:%s*false', '"redrive":true')
            end
        end
        park(dead, order, raw, feed, ARGV[at], ARGV[at + 1], letter)
        at = at + 4
    end
    at = at + retried * 2
    for _ = 1, resolved do
        redis.call('HDEL', dead, ARGV[at])
        redis.call('ZREM', order, ARGV[at + 1])
        redis.call('HDEL', raw, ARGV[at])
        at = at + 2
    end
    reply[2] = redis.call('HLEN', dead)
end

-- A native group shows the lag to whoever looks at the stream. Nothing depends on it.
if is_known and (finished > 0 or checkpoint ~= known[4]) then
    local set = redis.pcall('XGROUP', 'SETID', feed, group, checkpoint, 'ENTRIESREAD', finished_now)
    if set.err then
        redis.pcall('XGROUP', 'CREATE', feed, group, checkpoint, 'ENTRIESREAD', finished_now)
    end
end

reply[3] = publish_emits(emits) or ''
return reply
