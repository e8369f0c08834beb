#!lua
-- Records how many partitions the feed of a category has, unless that is settled.
--
-- KEYS  their number, the feed of partition 0, its format
--
-- ARGV  the number that is wanted
--
-- Replies with the number there is now.

local recorded = redis.call('GET', KEYS[1])
if recorded then return tonumber(recorded) end
-- A feed that nobody has parted has one. An empty stream that never had an entry is none yet: groups
-- wait there for the first.
if redis.call('EXISTS', KEYS[3]) > 0 then return 1 end
if redis.call('EXISTS', KEYS[2]) > 0 then
    local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
    local last
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
    if last ~= '0-0' then return 1 end
end
redis.call('SET', KEYS[1], ARGV[1])
return tonumber(ARGV[1])
