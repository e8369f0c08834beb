#!lua
-- Keeps the state of an aggregate, unless one of the same or a later version is kept.
--
-- KEYS  the aggregate's snapshot, its history
--
-- ARGV  the version, the id of its event, the version of the state, the state
--
-- Replies with 1; with 0 where a newer one is kept.

local snapshot, history = KEYS[1], KEYS[2]
local kept = redis.call('HMGET', snapshot, 'version', 'stateVersion')
local version, state_version = tonumber(kept[1] or nil), tonumber(kept[2] or nil)
if version and version >= tonumber(ARGV[1]) then return 0 end
if state_version and state_version > tonumber(ARGV[3]) then
    -- Where the beginning of the history was dropped, nothing else leads to the state of newer programs.
    local first = redis.call('LINDEX', history, 0)
    local lowest = first and tonumber(string.match(first, '^%[1,(%d+),') or nil)
    if lowest and lowest > 1 then return 0 end
end
redis.call('HSET', snapshot, 'version', ARGV[1], 'event', ARGV[2], 'stateVersion', ARGV[3], 'state', ARGV[4])
return 1
