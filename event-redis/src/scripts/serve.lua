#!lua
-- Has a version of a projection be the one that is read.
--
-- KEYS  the versions
--
-- ARGV  the version
--
-- Replies with 1 and the version that was read before, if there was one; with 0 where there is no such version.

local known = redis.call('HGET', KEYS[1], ARGV[1])
local state = known and string.match(known, '^%a+')
if state ~= 'live' and state ~= 'filling' then return {0} end
local before = redis.call('HGET', KEYS[1], 'served')
local categories = string.gsub(known, '^%a+', '')
redis.call('HSET', KEYS[1], ARGV[1], 'live' .. categories, 'served', ARGV[1])
return {1, before}
