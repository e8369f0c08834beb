#!lua flags=no-writes
-- Counts how many entries a feed has had up to a position, a few at a time so that the server can do
-- other things in between. It counts from the position to both ends of the feed, and the nearer one
-- tells.
--
-- KEYS  the feed
--
-- ARGV  the position
--       for how far it was counted forward and backward: after which entry, and how many that were
--
-- Replies with 1, the position, or the last one where the feed has not come so far, the number, and that
-- of all entries there ever were; with 0 and how far it has counted now, as it takes it.

local AT_ONCE = 1000

local feed, position = KEYS[1], ARGV[1]
local forward, later = ARGV[2], tonumber(ARGV[3])
local backward, earlier = ARGV[4], tonumber(ARGV[5])

if redis.call('EXISTS', feed) == 0 then return {1, '0-0', '0', '0'} end
local info = {}
local said = redis.call('XINFO', 'STREAM', feed)
for i = 1, #said, 2 do info[said[i]] = said[i + 1] end
local added = info['entries-added']
local function told(passed)
    return {1, position, string.format('%d', passed), string.format('%d', added)}
end

local entries = redis.call('XRANGE', feed, '(' .. forward, '+', 'COUNT', AT_ONCE)
later = later + #entries
if later == 0 then position = info['last-generated-id'] end
if #entries < AT_ONCE then return told(added - later) end
forward = entries[#entries][1]

local from = backward
if from ~= position then from = '(' .. from end
entries = redis.call('XREVRANGE', feed, from, '-', 'COUNT', AT_ONCE)
earlier = earlier + #entries
if #entries < AT_ONCE then return told(added - info['length'] + earlier) end
backward = entries[#entries][1]
return {0, forward, string.format('%d', later), backward, string.format('%d', earlier)}
