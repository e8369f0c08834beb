-- Looks whether what is emitted to a partition in another slot can be stored there. Stores nothing.
--
-- KEYS  up to where was delivered
--       those of what is emitted: see emit.lua
--
-- ARGV  from where it would be delivered, the number of appends
--       what is emitted, of one partition: see emit.lua
--
-- Replies with a status, and
--   0 can be      up to which number was delivered from there
--   3 refused     see emit.lua
--   4 partitions  see emit.lua
--   6 forbidden   the command that the client may not use

local POSSIBLE, REFUSED, PARTITIONS, NOT_ALLOWED = 0, 3, 4, 6

local delivered, from, append_count = KEYS[1], ARGV[1], tonumber(ARGV[2])

local mark = redis.call('HGET', delivered, from)
local _, refused, others = read_emits(3, 2, 1, append_count)
if others then return {PARTITIONS, others[1], others[2]} end
if refused then
    table.insert(refused, 1, REFUSED)
    return refused
end
if not redis.acl_check_cmd('HSET', delivered, from, '1') then return {NOT_ALLOWED, 'HSET'} end
return {POSSIBLE, tonumber(mark or 0)}
