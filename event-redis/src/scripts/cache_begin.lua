#!lua
-- Notes that a value is being loaded.
--
-- KEYS  the entry of a cache
--
-- ARGV  what the entry is called from now on, if it is new: a generation, which nothing else is called
--       how long a load may take, in milliseconds
--
-- Replies with the generation of the entry, and how many invalidations are noted in it.

local entry = KEYS[1]
local known = redis.call('HMGET', entry, 'generation', 'noted')
if not known[1] then
    redis.call('HSET', entry, 'generation', ARGV[1], 'noted', '[]')
    redis.call('PEXPIRE', entry, ARGV[2])
    return {ARGV[1], 0}
end
if redis.call('HEXISTS', entry, 'value') == 0 then redis.call('PEXPIRE', entry, ARGV[2]) end
return {known[1], #cjson.decode(known[2])}
