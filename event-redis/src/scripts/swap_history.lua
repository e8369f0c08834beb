#!lua
-- Puts a history that was made anew in the place of the old one, if it has all there is.
--
-- KEYS  the history, the one that was made, the feed
--
-- ARGV  up to where the feed was read, the version that what was made ends with
--       the type and the id of the aggregate
--
-- Replies with a status, and
--   0 done     nothing
--   1 read on  nothing: the feed goes on, and has more of the aggregate, or may have
--   2 newer    the version of the history that is there
--   3 lost     nothing: what was made is not there any more, or is in its place already

local DONE, READ_ON, NEWER, LOST = 0, 1, 2, 3
-- So many entries are looked at, behind those that were read.
local MOST = 500

local history, made, feed = KEYS[1], KEYS[2], KEYS[3]
local version = tonumber(ARGV[2])

if redis.call('LLEN', made) ~= version then return {LOST} end
local behind = redis.call('XRANGE', feed, '(' .. ARGV[1], '+', 'COUNT', MOST)
if #behind == MOST then return {READ_ON} end
for _, entry in ipairs(behind) do
    for i = 1, #entry[2], 2 do
        if entry[2][i] == 'aggregate' then
            local is_json, named = pcall(cjson.decode, entry[2][i + 1])
            if is_json and type(named) == 'table' and named.type == ARGV[3] and named.id == ARGV[4] then
                return {READ_ON}
            end
        end
    end
end
-- What was appended since is in the feed, and was found above.
local last = redis.call('LINDEX', history, -1)
local there = last and tonumber(string.match(last, '^%[1,(%d+),') or nil)
if there and there > version then return {NEWER, there} end
if not redis.acl_check_cmd('RENAME', made, history) then
    return redis.error_reply('NOPERM this user may not use RENAME on ' .. history)
end

redis.call('PERSIST', made)
redis.call('RENAME', made, history)
return {DONE}
