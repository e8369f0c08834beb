#!lua
-- Adds events to a history that is being made, where they follow on what is there. So a call that is sent
-- again adds nothing.
--
-- KEYS  the history that is being made
--
-- ARGV  the version that the first of them has
--       for how long what was made is kept, in milliseconds
--       the elements
--
-- Replies with how many elements are there.

local made = KEYS[1]
-- Lua cannot hand over more than some thousands of arguments at once.
local FIRST, AT_ONCE = 3, 1000

if redis.call('LLEN', made) + 1 == tonumber(ARGV[1]) then
    for from = FIRST, #ARGV, AT_ONCE do
        redis.call('RPUSH', made, unpack(ARGV, from, math.min(from + AT_ONCE - 1, #ARGV)))
    end
end
redis.call('PEXPIRE', made, ARGV[2])
return redis.call('LLEN', made)
