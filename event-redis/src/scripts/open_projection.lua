#!lua
-- Makes a version of a projection known. The first one is served at once.
--
-- KEYS  the versions, the checkpoints, the names of the keys, who fills the version
--       the document and the fields of a key that there is not
--
-- ARGV  the version
--       the categories that it is made of, with a blank between them
--       1 where nothing is to be done if the version is not known, and another one is read
--
-- Replies with a status, and
--   0 open       the versions
--   1 dropping   nothing: it is to be dropped to its end first
--   2 forbidden  the command that the client may not use

local OPEN, DROPPING, FORBIDDEN = 0, 1, 2

local versions, checkpoints, names, holder = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local document, fields = KEYS[5], KEYS[6]

-- What is written later is looked at now, so that nothing is broken off in the middle.
for _, command in ipairs({
    {'HSET', versions, '', ''}, {'HSET', checkpoints, '', ''}, {'HGET', checkpoints, ''},
    {'ZADD', names, '0', ''}, {'ZREM', names, ''}, {'SET', holder, ''},
    {'SET', document, ''}, {'DEL', document, fields}, {'EXISTS', document, fields},
    {'HMGET', fields, ''}, {'HSET', fields, '', ''}, {'HDEL', fields, ''},
}) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end

local known = redis.call('HGET', versions, ARGV[1])
local state = known and string.match(known, '^%a+') or 'filling'
if ARGV[3] == '1' and not known and redis.call('HEXISTS', versions, 'served') == 1 then
    return {OPEN, redis.call('HGETALL', versions)}
end
if state == 'dropping' then return {DROPPING} end
if redis.call('HSETNX', versions, 'served', ARGV[1]) == 1 then state = 'live' end
redis.call('HSET', versions, ARGV[1], state .. ' ' .. ARGV[2])
return {OPEN, redis.call('HGETALL', versions)}
