-- Makes an instance the owner of a partition, unless another owns it.
--
-- KEYS  the group's progress, the feed
--       the group's dead letters, their order, their raw entries
--
-- ARGV  the instance
--       for how long, in milliseconds
--
-- Replies with a status, and
--   0 owned      the epoch, the progress as open.lua replies it, 1 where the feed has lost its end,
--                and the entry at the checkpoint, if there is one
--   1 refused    for how many milliseconds another owns it
--   2 forbidden  the command that the client may not use

local OWNED, REFUSED, FORBIDDEN = 0, 1, 2

local progress, feed, dead, order, raw = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local instance = ARGV[1]

-- What commits will do is looked at now, so that none is broken off in the middle.
local commands = {
    {'HSET', progress, '', ''}, {'XRANGE', feed, '-', '+'},
    {'HSET', dead, '', ''}, {'ZADD', order, '0', ''}, {'HSET', raw, '', ''},
    {'HDEL', dead, ''}, {'ZREM', order, ''}, {'HDEL', raw, ''},
}
for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', progress,
    'owner', 'until', 'checkpoint', 'event', 'reached', 'open', 'finished')
local owner, ends = known[1], tonumber(known[2] or nil)
local checkpoint, event = known[3] or '0-0', known[4] or ''
local reached, open = known[5] or checkpoint, known[6] or '[]'
local finished = tonumber(known[7] or nil)

if owner and owner ~= '' and owner ~= instance and ends and ends > now then
    return {REFUSED, ends - now}
end

local info = info_of(feed)
local last = info['last-generated-id'] or '0-0'

local lost = 0
local entry = {}
if before(last, reached) then
    -- What comes next lies where this group believes to have been already.
    lost = 1
    local left = {}
    for _, unfinished in ipairs(cjson.decode(open)) do
        if not before(last, unfinished.position) then
            local done = {}
            for i, handler in ipairs(unfinished.done) do done[i] = cjson.encode(handler) end
            -- Written by hand, since an empty list would become an object.
            left[#left + 1] = '{"position":"' .. unfinished.position .. '","done":['
                .. table.concat(done, ',') .. ']}'
        end
    end
    open = '[' .. table.concat(left, ',') .. ']'
    reached = last
    if before(last, checkpoint) then
        checkpoint = last
        event = ''
    end
    finished = finished and math.min(finished, info['entries-added'] or 0)
elseif event ~= '' then
    entry = redis.call('XRANGE', feed, checkpoint, checkpoint)
    local first = info['first-entry']
    if #entry == 0 and first and before(first[1], checkpoint)
        and before(info['max-deleted-entry-id'] or '0-0', checkpoint) then
        -- It was neither trimmed away nor deleted.
        lost = 1
    end
end

local epoch = redis.call('HINCRBY', progress, 'epoch', 1)
redis.call('HSET', progress, 'owner', instance,
    'until', string.format('%d', now + ARGV[2]), 'commit', '0')
-- A group that was never opened here, or is forgotten, does not become known by this: its start is still
-- to say where it begins.
if known[3] then
    redis.call('HSET', progress,
        'checkpoint', checkpoint, 'event', event, 'reached', reached, 'open', open)
    if finished then redis.call('HSET', progress, 'finished', string.format('%d', finished)) end
end
return {OWNED, epoch, checkpoint, event, reached, open, lost, entry}
