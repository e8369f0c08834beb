#!lua
-- Prolongs the ownership of a partition, unless another owns it by now.
--
-- KEYS  the group's progress
--
-- ARGV  the instance, the epoch
--       for how long from now on, in milliseconds
--
-- Replies with 1; with 0 where it is lost.

local known = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%d', now + ARGV[3]))
return 1
