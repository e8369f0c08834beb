#!lua
-- Removes a part of the state of a version; with the last part, the version. That which is read is removed only
-- where there is no other one to read.
--
-- KEYS  the versions, the checkpoints, the names of the keys, who fills the version
--       for each key that is removed: its document, its fields
--
-- ARGV  the version
--       how many names are given back at most
--       the names of the keys that are removed
--
-- Replies with a status, and
--   0 dropped   nothing
--   1 more      the names of keys that are to be removed next
--   2 served    nothing: it is the version that is read, and there are others
--   3 unknown   nothing: there is no such version

local DROPPED, MORE, SERVED, UNKNOWN = 0, 1, 2, 3

local versions, checkpoints, names, holder = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local version = ARGV[1]

local is_served = redis.call('HGET', versions, 'served') == version
if is_served then
    for _, field in ipairs(redis.call('HKEYS', versions)) do
        if field ~= 'served' and field ~= version then return {SERVED} end
    end
end
if redis.call('HEXISTS', versions, version) == 0 then return {UNKNOWN} end
-- From now on nothing is written to it.
redis.call('HSET', versions, version, 'dropping')
if is_served then redis.call('HDEL', versions, 'served') end

for i = 5, #KEYS do redis.call('UNLINK', KEYS[i]) end
for i = 3, #ARGV do redis.call('ZREM', names, ARGV[i]) end
local left = redis.call('ZRANGE', names, '0', tonumber(ARGV[2]) - 1)
if #left > 0 then return {MORE, left} end
redis.call('UNLINK', checkpoints, names, holder)
redis.call('HDEL', versions, version)
return {DROPPED}
