-- Stores recorded events where they lay, in the feed and in the histories of their aggregates: all of
-- them or none.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the feed, the format
--       the history of each aggregate
--
-- ARGV  for each history: the version that it must be at
--       for each event: position, type, payload, metadata; the field `aggregate`, or nothing; the number
--         of its history, or 0; the element of the history, or nothing
--
-- Replies with a status, and
--   0 stored      nothing
--   1 behind      the newest position that the feed has
--   2 version     the number of the history, and the version that it is at
--   3 unreadable  the last element of a history
--   4 format      the format the feed has
--   5 forbidden   the command that the client may not use

local STORED, BEHIND, VERSION, UNREADABLE, FORMAT, FORBIDDEN = 0, 1, 2, 3, 4, 5
-- Lua cannot hand over more than some thousands of arguments at once.
local AT_ONCE = 1000
local STEP = 7

local feed, format_key = KEYS[1], KEYS[2]
local histories = #KEYS - 2
local first = histories + 1
local newest = #ARGV - STEP + 1

local format = redis.call('GET', format_key)
if format and format ~= '1' then return {FORMAT, format} end

local head = info_of(feed)['last-generated-id'] or '0-0'
if not before(head, ARGV[first]) then
    -- It may be the same call again, whose reply was lost; then all of it is there.
    for at = newest, first, -STEP do
        local found = redis.call('XRANGE', feed, ARGV[at], ARGV[at])[1]
        local fields = found and found[2] or {}
        if fields[2] ~= ARGV[at + 1] or fields[#fields] ~= ARGV[at + 3] then
            return {BEHIND, head}
        end
    end
    return {STORED}
end

for i = 1, histories do
    local version = 0
    local last = redis.call('LINDEX', KEYS[2 + i], -1)
    if last then
        version = tonumber(string.match(last, '^%[1,(%d+),'))
        if not version then return {UNREADABLE, string.sub(last, 1, 100)} end
    end
    if version ~= tonumber(ARGV[i]) then return {VERSION, i, version} end
end

local writes = {{'XADD', feed, ARGV[first], 'type', ''}, {'SET', format_key, '1'}}
for i = 1, histories do writes[#writes + 1] = {'RPUSH', KEYS[2 + i], ''} end
for _, write in ipairs(writes) do
    if not redis.acl_check_cmd(unpack(write)) then return {FORBIDDEN, write[1]} end
end

-- From here on nothing may fail.

local elements = {}
for i = 1, histories do elements[i] = {} end
for at = first, #ARGV, STEP do
    if ARGV[at + 4] == '' then
        redis.call('XADD', feed, ARGV[at], 'type', ARGV[at + 1], 'payload', ARGV[at + 2],
            'metadata', ARGV[at + 3])
    else
        redis.call('XADD', feed, ARGV[at], 'type', ARGV[at + 1], 'payload', ARGV[at + 2],
            'aggregate', ARGV[at + 4], 'metadata', ARGV[at + 3])
    end
    local own = elements[tonumber(ARGV[at + 5])]
    if own then own[#own + 1] = ARGV[at + 6] end
end
for i = 1, histories do
    local own = elements[i]
    for from = 1, #own, AT_ONCE do
        redis.call('RPUSH', KEYS[2 + i], unpack(own, from, math.min(from + AT_ONCE - 1, #own)))
    end
end
if not format then redis.call('SET', format_key, '1') end
return {STORED}
