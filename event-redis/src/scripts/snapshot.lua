#!lua
-- Keeps the state of an aggregate, unless one of the same or a later version is kept.
--
-- KEYS  the aggregate's snapshot
--
-- ARGV  the version, the id of its event, the version of the state, the state
--
-- Replies with 1; with 0 where a newer one is kept.

local kept = tonumber(redis.call('HGET', KEYS[1], 'version') or nil)
if kept and kept >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'event', ARGV[2], 'stateVersion', ARGV[3], 'state', ARGV[4])
return 1
