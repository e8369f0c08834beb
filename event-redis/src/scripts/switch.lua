-- Has a version of a projection be the one that is read, where nothing is in the state of the one that is read
-- now that is not in this one, too.
--
-- KEYS  the versions
--       the checkpoints of the version, and of the one that is read
--
-- ARGV  the version, and the one that is read
--
-- Replies with a status
--   0 switched  it is read now, or was before
--   1 unknown   there is no such version
--   2 behind    it has something yet to take in, or yet another version is read

local SWITCHED, UNKNOWN, BEHIND = 0, 1, 2

local versions, own, other = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HGET', versions, ARGV[1])
local state = known and string.match(known, '^%a+')
if state ~= 'live' and state ~= 'filling' then return UNKNOWN end
local served = redis.call('HGET', versions, 'served')
if served == ARGV[1] then return SWITCHED end
if served ~= ARGV[2] then return BEHIND end

local categories = {}
for category in string.gmatch(known, ' (%S+)') do categories[category] = true end
local checkpoints = redis.call('HGETALL', other)
for i = 1, #checkpoints, 2 do
    local partition, checkpoint = checkpoints[i], checkpoints[i + 1]
    if categories[string.match(partition, '^[^:]+')]
        and before(redis.call('HGET', own, partition) or '0-0', checkpoint) then
        return BEHIND
    end
end
local made_of = string.gsub(known, '^%a+', '')
redis.call('HSET', versions, ARGV[1], 'live' .. made_of, 'served', ARGV[1])
return SWITCHED
