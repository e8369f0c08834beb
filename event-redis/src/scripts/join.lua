#!lua
-- Says that an instance of a group is there, and forgets those that have not said so for too long.
--
-- KEYS  the group's members, its changes
--
-- ARGV  the instance
--       for how long, in milliseconds
--
-- Replies with each instance that is there, and for how many milliseconds.

local members, changes = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local ends = tonumber(redis.call('ZSCORE', members, ARGV[1]) or nil)
redis.call('ZADD', members, string.format('%d', now + ARGV[2]), ARGV[1])
local gone = redis.call('ZREMRANGEBYSCORE', members, '-inf', string.format('%d', now))
if gone > 0 or not ends or ends <= now then
    redis.call('XADD', changes, 'MAXLEN', '~', '100', '*', 'change', 'members')
end

local reply = redis.call('ZRANGE', members, 0, -1, 'WITHSCORES')
for i = 2, #reply, 2 do reply[i] = reply[i] - now end
return reply
