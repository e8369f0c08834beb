#!lua
-- Makes an instance the one that fills a version of a projection, or no longer.
--
-- KEYS  the versions, who fills the version
--
-- ARGV  the version, the instance
--       for how long, in milliseconds; 0: no longer
--
-- Replies with 1; with 0 where another instance does, or there is no such version.

local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
    redis.call('DEL', KEYS[2])
    return 1
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
