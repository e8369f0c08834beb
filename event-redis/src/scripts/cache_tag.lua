#!lua
-- Puts an entry under a tag.
--
-- KEYS  the tag of a cache: a sorted set of entries, by when they are gone, in microseconds since 1970
--
-- ARGV  the entry, in how many milliseconds it is gone

-- How many entries that are gone leave with one that comes.
local LEAVING = 100

local tag = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local gone = redis.call('ZRANGE', tag, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, LEAVING)
if #gone > 0 then redis.call('ZREM', tag, unpack(gone)) end

local score = now + tonumber(ARGV[2]) * 1000
local before = tonumber(redis.call('ZSCORE', tag, ARGV[1]) or nil)
if before and before > score then score = before end
redis.call('ZADD', tag, string.format('%.0f', score), ARGV[1])
local left = math.ceil((score - now) / 1000)
if redis.call('PTTL', tag) < left then redis.call('PEXPIRE', tag, string.format('%.0f', left)) end
return 1
