#!lua
-- Records how many partitions the feed of a category has, unless that is settled.
--
-- KEYS  their number, the feed of partition 0, its format
--
-- ARGV  the number that is wanted
--
-- Replies with the number there is now.

local recorded = redis.call('GET', KEYS[1])
if recorded then return tonumber(recorded) end
-- A feed that nobody has parted has one.
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 1 end
redis.call('SET', KEYS[1], ARGV[1])
return tonumber(ARGV[1])
