-- Stores what lies in an outbox in another slot: the records that follow on those which were delivered
-- from there. All of it or nothing.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  up to where was delivered
--       those of what is emitted: see emit.lua
--
-- ARGV  from where it is delivered
--       the number of the first record
--       up to where was delivered, where the records from there to the first are lost; else nothing
--       flags:
--         r  the client waits for replicas, so that a repetition must write something
--         d  what was delivered is not looked at    (only to show that a test finds what comes of it)
--       the number of records
--       what is emitted, of one partition: see emit.lua, the runs being the records, counted from 0
--
-- Replies with a status, and
--   0 stored   up to which number is delivered now; why an event was not published, or nothing
--   1 gap      up to which number was delivered: what follows on that is not here
--   3 refused  see emit.lua

local STORED, GAP, REFUSED = 0, 1, 3

local delivered, from = KEYS[1], ARGV[1]
local first, accepted, flags, count = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])

local mark = tonumber(redis.call('HGET', delivered, from) or 0)
if string.find(flags, 'd', 1, true) then
    mark = first - 1
elseif accepted ~= '' then
    -- Somebody else may have seen to it meanwhile.
    if mark ~= tonumber(accepted) then return {GAP, mark} end
    mark = math.max(mark, first - 1)
elseif first > mark + 1 then
    -- Where a process of the source's server begins to number, nothing is missing in between: whoever
    -- delivers this has delivered what lay before it.
    if (first - 1) % NUMBERS_AT_ONCE ~= 0 then return {GAP, mark} end
    mark = first - 1
end

local last = first + count - 1
if last <= mark then
    -- It must reach the replicas, too. They get what is written in order, so any write that comes
    -- after it does.
    if string.find(flags, 'r', 1, true) then
        redis.call('HSET', delivered, from, string.format('%d', mark))
    end
    return {STORED, mark, ''}
end

if not redis.acl_check_cmd('HSET', delivered, from, '1') then
    return redis.error_reply('NOPERM this user may not use HSET on ' .. delivered)
end
local left_out = {}
for n = first, mark do left_out[n - first] = true end
local emits, refused = read_emits(6, 2, 1, count, left_out)
if refused then
    table.insert(refused, 1, REFUSED)
    return refused
end

-- From here on nothing may fail.

store_emits(emits, {}, 0)
redis.call('HSET', delivered, from, string.format('%d', last))
return {STORED, last, publish_emits(emits) or ''}
