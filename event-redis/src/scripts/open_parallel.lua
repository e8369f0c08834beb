#!lua
-- Makes the group of a handler with parallel delivery known for a partition, if it is not: a native
-- group of the stream. Where it is lost, it is made again from what is remembered of it.
--
-- KEYS  what is remembered of the handler's group, the feed
--       the dead letters of the service's group, their order, their raw entries
--       the names of that group's handlers with parallel delivery
--
-- ARGV  the handler's group
--       where a new group begins, as in open.lua; or `again`, where it is lost
--       the handler
--
-- Replies with a status, and
--   0 open       nothing
--   1 count      nothing: what a new group passes over is to be counted first
--   2 forbidden  the command that the client may not use
--   3 forgotten  nothing: it is not lost, but was reset on purpose

local OPEN, COUNT, FORBIDDEN, FORGOTTEN = 0, 1, 2, 3

local memory, feed, dead, order, raw, handlers =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group = ARGV[1]

-- What comes afterwards is looked at now, so that none is broken off in the middle.
local commands = {
    {'XREADGROUP', 'GROUP', group, '', 'STREAMS', feed, '>'}, {'XACK', feed, group, '0-0'},
    {'XPENDING', feed, group, '-', '+', '1'}, {'XINFO', 'GROUPS', feed}, {'HSET', memory, '', ''},
    {'XRANGE', feed, '-', '+'}, {'HSET', dead, '', ''}, {'ZADD', order, '0', ''},
    {'HSET', raw, '', ''}, {'SADD', handlers, ''},
}
for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end

local known = redis.call('HMGET', memory, 'pending', 'delivered', 'forgotten')
local pending, from, is_forgotten = known[1], known[2], known[3]
if is_forgotten and ARGV[2] == 'again' then return {FORGOTTEN} end
-- How many entries lie before, where the server cannot know.
local read
if from and pending and pending ~= '' then
    -- Behind the entry before the first that was not handled.
    local before = redis.call('XREVRANGE', feed, '(' .. pending, '-', 'COUNT', '1')[1]
    from = before and before[1] or '0-0'
elseif not from then
    from = '0-0'
    if ARGV[2] == 'after' then
        if ARGV[4] == '' then return {COUNT} end
        from, read = ARGV[3], ARGV[4]
    elseif ARGV[2] == 'now' and redis.call('EXISTS', feed) == 1 then
        local said = redis.call('XINFO', 'STREAM', feed)
        for i = 1, #said, 2 do
            if said[i] == 'last-generated-id' then from = said[i + 1] end
        end
    end
end
redis.call('SADD', handlers, ARGV[5])
-- It must be there before the first entry is, since a group is part of its stream.
local create = {'XGROUP', 'CREATE', feed, group, from, 'MKSTREAM'}
if read then
    create[#create + 1] = 'ENTRIESREAD'
    create[#create + 1] = read
end
local made = redis.pcall(unpack(create))
if made.err then
    if string.find(made.err, '^BUSYGROUP') then return {OPEN} end
    return made
end
if not known[2] then redis.call('HSET', memory, 'pending', '', 'delivered', from) end
if is_forgotten then redis.call('HDEL', memory, 'forgotten') end
return {OPEN}
