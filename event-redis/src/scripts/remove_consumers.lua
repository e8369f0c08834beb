#!lua
-- Forgets consumers of a group for which nothing is pending.
--
-- KEYS  the feed
--
-- ARGV  the group
--       for how long they must have done nothing, in milliseconds
--       which one; empty: any
--
-- Replies with how many there were.

local feed, group, idle, only = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]

local consumers = redis.pcall('XINFO', 'CONSUMERS', feed, group)
if consumers.err then
    if string.find(consumers.err, '^NOGROUP') or string.find(consumers.err, 'no such key') then
        return 0
    end
    return consumers
end
local count = 0
for _, said in ipairs(consumers) do
    local info = {}
    for i = 1, #said, 2 do info[said[i]] = said[i + 1] end
    -- To delete one with pending entries would lose them.
    if info['pending'] == 0 and info['idle'] >= idle and (only == '' or info['name'] == only) then
        redis.call('XGROUP', 'DELCONSUMER', feed, group, info['name'])
        count = count + 1
    end
end
return count
