-- Looks whether every entry of a range was delivered to a group and is pending for nobody.
--
-- KEYS  the feed
--
-- ARGV  the group
--       the first and the last position
--
-- Replies with 1 if so, with 0 if not, and with -1 where there is no such group.

local feed, group = KEYS[1], ARGV[1]

local pending = redis.pcall('XPENDING', feed, group, ARGV[2], ARGV[3], '1')
if pending.err then
    if string.find(pending.err, '^NOGROUP') then return -1 end
    return pending
end
if #pending > 0 then return 0 end
local found = groups_of(feed)[group]
if not found then return -1 end
local after = '(' .. found['last-delivered-id']
return #redis.call('XRANGE', feed, after, ARGV[3], 'COUNT', '1') == 0 and 1 or 0
