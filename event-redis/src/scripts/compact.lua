#!lua flags=allow-oom
-- Drops the beginning of an aggregate's history, behind a snapshot.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the history of the aggregate, its snapshot
--
-- ARGV  the snapshot: the version, the id of its event, the version of the state, the state
--       the first version that stays
--
-- Replies with a status, and
--   0 compacted  how many elements were dropped, and the first version that is there
--   1 not found  nothing: there is no history
--   2 other      nothing: the history does not have the snapshot's event
--   3 newer      the version of the state that is kept

local COMPACTED, NOT_FOUND, OTHER, NEWER = 0, 1, 2, 3

local history, snapshot = KEYS[1], KEYS[2]
local version, state_version, keep = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[5])

local function version_of(element)
    return tonumber(string.match(element, '^%[1,(%d+),') or nil)
end

local first, last = redis.call('LINDEX', history, 0), redis.call('LINDEX', history, -1)
if not first then return {NOT_FOUND} end
local lowest, highest = version_of(first), version_of(last)
if not lowest or not highest then return {OTHER} end

local function has(at, id)
    if not at or at < lowest or at > highest then return false end
    local element = redis.call('LINDEX', history, at - highest - 1)
    local start = string.format('[1,%d,"%s"', at, id)
    return element and string.sub(element, 1, #start) == start
end
if not has(version, ARGV[2]) then return {OTHER} end

local kept = redis.call('HMGET', snapshot, 'version', 'event', 'stateVersion')
local kept_version, kept_state = tonumber(kept[1] or nil), tonumber(kept[3] or nil)
if kept_state and kept_state > state_version then return {NEWER, kept_state} end
for _, command in ipairs({{'HSET', snapshot, '', ''}, {'LTRIM', history, '0', '-1'}}) do
    if not redis.acl_check_cmd(unpack(command)) then
        return redis.error_reply('NOPERM this user may not use ' .. command[1] .. ' on ' .. command[2])
    end
end

-- From here on nothing may fail.

local is_newer = kept_state == state_version and kept_version and kept_version >= version
    and has(kept_version, kept[2] or '')
if not is_newer then
    redis.call('HSET', snapshot, 'version', ARGV[1], 'event', ARGV[2], 'stateVersion', ARGV[3],
        'state', ARGV[4])
end
-- The snapshot's own event stays: by that it is known whose state it is.
local dropped = math.min(keep, version) - lowest
if dropped <= 0 then return {COMPACTED, 0, lowest} end
redis.call('LTRIM', history, dropped, -1)
return {COMPACTED, dropped, lowest + dropped}
