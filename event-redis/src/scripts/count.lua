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

-- So many entries, or about so many bytes of them, are counted in each direction: they can only be counted
-- by reading them.
local MOST, MOST_BYTES = 1000, 512 * 1024
-- And so many are read at once.
local AT_ONCE = 32

local feed, position = KEYS[1], ARGV[1]
local forward, later = ARGV[2], tonumber(ARGV[3])
local backward, earlier = ARGV[4], tonumber(ARGV[5])

if redis.call('EXISTS', feed) == 0 then return {1, '0-0', '0', '0'} end
local info = info_of(feed)
local added = info['entries-added']
local function told(passed)
    return {1, position, string.format('%d', passed), string.format('%d', added)}
end

-- Counts some; gives how many, the last of them, and whether there are no more.
local function some(command, from, to)
    local count, bytes, largest, at_once, last = 0, 0, 1, 1, nil
    while count < MOST and bytes < MOST_BYTES do
        local entries = redis.call(command, feed, from, to, 'COUNT', at_once)
        for _, entry in ipairs(entries) do
            local size = 0
            for _, text in ipairs(entry[2]) do size = size + #text end
            bytes = bytes + size
            largest = math.max(largest, size)
        end
        count = count + #entries
        if #entries > 0 then last = entries[#entries][1] end
        if #entries < at_once then return count, last, true end
        from = '(' .. last
        local room = math.floor((MOST_BYTES - bytes) / largest)
        at_once = math.max(1, math.min(at_once * 2, AT_ONCE, room))
    end
    return count, last, false
end

local count, last, is_end = some('XRANGE', '(' .. forward, '+')
later = later + count
if later == 0 then position = info['last-generated-id'] end
if is_end then return told(added - later) end
forward = last

local from = backward
if from ~= position then from = '(' .. from end
count, last, is_end = some('XREVRANGE', from, '-')
earlier = earlier + count
if is_end then return told(added - info['length'] + earlier) end
backward = last
return {0, forward, string.format('%d', later), backward, string.format('%d', earlier)}
