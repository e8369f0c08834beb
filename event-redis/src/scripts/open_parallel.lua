-- Makes the group of a handler with parallel delivery known for a partition, if it is not: a native
-- group of the stream. Where it is lost, it is made again from what is remembered of it.
--
-- KEYS  what is remembered of the handler's group, the feed
--       the dead letters of the service's group, their order, their raw entries
--       the names of that group's handlers with parallel delivery
--       the names of the feed's groups, what is known of its trimming
--
-- ARGV  the handler's group
--       where a new group begins, as in open.lua; or `again`, where it is lost
--       the handler
--       for a group that is made again: where, and how many entries lie before; nothing where that is not
--         counted yet
--
-- Replies with a status, and
--   0 open       nothing
--   1 count      nothing: what a new group passes over is to be counted first; for one that is made again
--                up to where
--   2 forbidden  the command that the client may not use
--   3 forgotten  nothing: it is not lost, but was reset on purpose
--   4 trimmed    up to where the feed is trimmed away, where a new group would begin before that

local OPEN, COUNT, FORBIDDEN, FORGOTTEN, TRIMMED = 0, 1, 2, 3, 4

local memory, feed, dead, order, raw, handlers =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local groups, trimmed = KEYS[7], KEYS[8]
local group = ARGV[1]
local of_service = string.sub(group, 1, #group - #ARGV[6] - 1)

-- What comes afterwards is looked at now, so that none is broken off in the middle.
local commands = {
    {'XREADGROUP', 'GROUP', group, '', 'STREAMS', feed, '>'}, {'XACK', feed, group, '0-0'},
    {'XPENDING', feed, group, '-', '+', '1'}, {'XINFO', 'GROUPS', feed}, {'HSET', memory, '', ''},
    {'XRANGE', feed, '-', '+'}, {'HSET', dead, '', ''}, {'ZADD', order, '0', ''},
    {'HSET', raw, '', ''}, {'SADD', handlers, ''}, {'SADD', groups, ''},
}
for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end

local known = redis.call('HMGET', memory, 'pending', 'delivered', 'forgotten')
local pending, from, is_forgotten = known[1], known[2], known[3]
if is_forgotten and ARGV[2] == 'again' then return {FORGOTTEN} end

-- What the stream says of itself, and whether the group is there.
local info = info_of(feed)
if info['length'] and groups_of(feed)[group] then
    redis.call('SADD', handlers, ARGV[6])
    redis.call('SADD', groups, of_service)
    return {OPEN}
end
local last = info['last-generated-id'] or '0-0'
local added = info['entries-added'] or 0

if from and pending and pending ~= '' then
    -- Behind the entry before the first that was not handled.
    local before = redis.call('XREVRANGE', feed, '(' .. pending, '-', 'COUNT', '1')[1]
    from = before and before[1] or '0-0'
elseif not from then
    if ARGV[2] == 'beginning' or ARGV[2] == 'after' then
        local gone = trimmed_up_to(trimmed, info)
        if before(ARGV[5], gone) then return {TRIMMED, gone} end
    end
    from = '0-0'
    if ARGV[2] == 'after' then
        if ARGV[4] == '' then return {COUNT} end
        from = ARGV[3]
    elseif ARGV[2] == 'now' then
        from = last
    end
end
-- How many entries lie before: without that the server cannot tell the lag.
local read
if from == '0-0' then
    read = string.format('%d', added - (info['length'] or 0))
elseif from == last then
    read = string.format('%d', added)
elseif not known[2] then
    read = ARGV[4]
elseif ARGV[7] == from then
    read = ARGV[8]
else
    return {COUNT, from}
end
redis.call('SADD', handlers, ARGV[6])
redis.call('SADD', groups, of_service)
-- It must be there before the first entry is, since a group is part of its stream.
redis.call('XGROUP', 'CREATE', feed, group, from, 'MKSTREAM', 'ENTRIESREAD', read)
if not known[2] then redis.call('HSET', memory, 'pending', '', 'delivered', from) end
if is_forgotten then redis.call('HDEL', memory, 'forgotten') end
return {OPEN}
