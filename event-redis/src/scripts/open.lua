-- Makes a group known for a partition, if it is not.
--
-- KEYS  the group's progress, the feed
--       the names of the feed's groups, what is known of its trimming
--
-- ARGV  the name of the group
--       where a new group begins: `beginning`, `now` or `after`; after which position; how many entries
--         that passes over, see count.lua; and the position as it was asked for, which the feed need not
--         have come to
--
-- Replies with the checkpoint, the id of the event there, up to where everything is finished but for
-- what is open, and what is open. With nothing where the group is new and what it passes over is to be
-- counted first; with a position alone where it would begin before what was trimmed away up to there.

local progress, feed, groups, trimmed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local known = redis.call('HMGET', progress, 'checkpoint', 'event', 'reached', 'open', 'start')
-- A partition may be owned before that, by instances that only redrive its dead letters.
if known[5] or known[3] and known[3] ~= '0-0' then
    redis.call('SADD', groups, ARGV[1])
    return {known[1], known[2], known[3], known[4]}
end

local info = info_of(feed)

-- What was trimmed away, and what a group passes over, counts as finished: so the group's lag is what
-- it has yet to do.
if ARGV[2] ~= 'now' then
    local gone = trimmed_up_to(trimmed, info)
    if before(ARGV[5], gone) then return {gone} end
end
local from = '0-0'
local added = info['entries-added'] or 0
local finished = added - (info['length'] or 0)
if ARGV[2] == 'now' then
    from = info['last-generated-id'] or from
    finished = added
elseif ARGV[2] == 'after' then
    if ARGV[4] == '' then return {} end
    from = ARGV[3]
    finished = tonumber(ARGV[4])
end
redis.call('SADD', groups, ARGV[1])
redis.call('HSET', progress, 'checkpoint', from, 'event', '', 'reached', from, 'open', '[]',
    'finished', string.format('%d', finished), 'start', from)
redis.pcall('XGROUP', 'CREATE', feed, ARGV[1], from, 'ENTRIESREAD', string.format('%d', finished))
return {from, '', from, '[]'}
