-- Stores what has come of entries that a consumer of a handler with parallel delivery has taken: that
-- they are done, what was emitted, and dead letters. All of it or nothing.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  what is remembered of the handler's group, the feed
--       the dead letters of the service's group, their order, their raw entries
--       those of what is emitted: see emit.lua
--
-- ARGV  the handler's group, the consumer
--       the numbers of entries that are done, of those that emit something, of dead letters, of
--         partitions and of appends
--       each position that is done, and each that emits something
--       for each dead letter: its name, how it stands in the order, itself
--       what is emitted: see emit.lua, the runs being those positions, counted from 0
--
-- Replies with a status, and
--   0 stored      the number of dead letters; why an event was not published, or nothing; for each
--                 position that emits something 1, or 0 where it was left out, since it was not
--                 pending for this consumer; what was stored: see emit.lua
--   1 no group    nothing
--   3 refused     see emit.lua
--   4 partitions  see emit.lua
--   5 full        see emit.lua

local STORED, NO_GROUP, REFUSED, PARTITIONS, FULL = 0, 1, 3, 4, 5
local FIRST = 8

local memory, feed, dead, order, raw = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, consumer = ARGV[1], ARGV[2]
local done, emitting, parked = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local target_count, append_count = tonumber(ARGV[6]), tonumber(ARGV[7])

local lowest = redis.pcall('XPENDING', feed, group, '-', '+', '1')
if lowest.err then
    if string.find(lowest.err, '^NOGROUP') then return {NO_GROUP} end
    return lowest
end
local was_reset = redis.call('HGET', memory, 'resets')
redis.call('HLEN', dead)
if parked > 0 then
    redis.call('ZCARD', order)
    redis.call('HLEN', raw)
end

-- What another consumer has claimed is that one's to finish; and what is pending for nobody is
-- finished, by a repetition of this call perhaps.
local function is_own(position)
    return #redis.call('XPENDING', feed, group, position, position, '1', consumer) > 0
end

local finished, flags, left_out = {}, {}, {}
for n = 1, done do
    local position = ARGV[FIRST + n - 1]
    -- What was taken before the group was reset is to be handled again.
    if not was_reset or is_own(position) then finished[#finished + 1] = position end
end
for n = 0, emitting - 1 do
    local position = ARGV[FIRST + done + n]
    if is_own(position) then
        finished[#finished + 1] = position
        flags[n + 1] = '1'
    else
        left_out[n] = true
        flags[n + 1] = '0'
    end
end
local first_parked = FIRST + done + emitting
local emits, refused, others, full =
    read_emits(first_parked + parked * 3, 6, target_count, append_count, left_out)
if others then return {PARTITIONS, others[1], others[2]} end
if full then return {FULL, full} end
if refused then
    table.insert(refused, 1, REFUSED)
    return refused
end

-- From here on nothing may fail.

local reply = {STORED, 0, '', table.concat(flags)}
store_emits(emits, reply, 4)

for n = 0, parked - 1 do
    local at = first_parked + n * 3
    local position = string.match(ARGV[at], '^[^/]+')
    if is_own(position) then
        finished[#finished + 1] = position
        park(dead, order, raw, feed, ARGV[at], ARGV[at + 1], ARGV[at + 2])
    end
end
reply[2] = redis.call('HLEN', dead)

for from = 1, #finished, AT_ONCE do
    local to = math.min(from + AT_ONCE - 1, #finished)
    redis.call('XACK', feed, group, unpack(finished, from, to))
end

-- From where on a group is made again that was lost. This also is the write that must reach the
-- replicas where this was a repetition.
lowest = redis.call('XPENDING', feed, group, '-', '+', '1')[1]
redis.call('HSET', memory, 'pending', lowest and lowest[1] or '',
    'delivered', groups_of(feed)[group]['last-delivered-id'])

reply[3] = publish_emits(emits) or ''
return reply
