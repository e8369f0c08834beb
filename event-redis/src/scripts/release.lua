#!lua
-- Gives the ownership of a partition back.
--
-- KEYS  the group's progress
--
-- ARGV  the instance, the epoch
--
-- Replies with 1; with 0 where it was lost before.

local known = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then return 0 end
-- The epoch stays, so that it only grows.
redis.call('HDEL', KEYS[1], 'owner', 'until')
return 1
