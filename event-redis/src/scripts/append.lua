-- Appends events to a feed, and to the history of their aggregate: all of them or none.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the feed
--       the history of the aggregate          if there is an aggregate
--       the newer and the older known ids     if ids are remembered
--       the format                            with the flag f or r
--       the number of partitions              with the flag o
--       the numbers of published events       with the flag p
--       the receipt of the command            with the flag c
--
-- ARGV  the version that is expected; -1: any, -2: any but 0
--       how many ids are remembered at least; 0: none
--       flags:
--         f  first append of this client to this feed: see whether the client may write it
--         o  the client takes it that the category has one partition: see whether it has
--         p  publish each event that is stored
--         r  the client waits for replicas, so that a repetition must write something
--         c  it is what a command has led to, which is done once
--       the aggregate as JSON, up to its version; empty: none
--       for how long the receipt is kept, in milliseconds            with the flag c
--       for each event: id, type, payload, metadata,
--         the element of the history from behind the position on     if there is an aggregate
--         the message up to the name of its publisher                with the flag p
--
-- Replies with a status, and
--   0 stored      the first version, then the position of each event; and then, if one was not
--                 published, why
--   1 in part     for each event its position and version as `position:version`, after a `=` where
--                 it was stored before
--   2 repeated    the elements that are stored already
--   3 conflict    the version the aggregate is at
--   4 unreadable  the last element of the history
--   5 format      the format the feed has
--   6 forbidden   the command that the client may not use
--   7 taken       the id that an event of another aggregate has, or one of none
--   8 partitions  the number that the category has
--   9 done        the first and the last version that the command has led to

local STORED, IN_PART, REPEATED, CONFLICT = 0, 1, 2, 3
local UNREADABLE, FORMAT, FORBIDDEN, TAKEN, PARTITIONS, DONE = 4, 5, 6, 7, 8, 9
local EXISTS = -2
-- Known ids are kept for this long at least, in milliseconds.
local DAY = 86400000
-- Lua cannot hand over more than some thousands of arguments at once.
local AT_ONCE = 1000
local FIRST = 5

local expected = tonumber(ARGV[1])
local remembered = tonumber(ARGV[2])
local flags = ARGV[3]
local head = ARGV[4]

local aggregate = head ~= ''
local windowed = remembered > 0
local publish = false
local first, waits, assumed, once = false, false, false, false
if flags ~= '' then
    first = string.find(flags, 'f', 1, true)
    assumed = string.find(flags, 'o', 1, true)
    publish = string.find(flags, 'p', 1, true)
    waits = string.find(flags, 'r', 1, true)
    once = string.find(flags, 'c', 1, true)
end
if once then FIRST = FIRST + 1 end

local step = 4
if aggregate then step = step + 1 end
local message_at = step
if publish then step = step + 1 end
local count = (#ARGV - FIRST + 1) / step

local feed = KEYS[1]
local at_key = 2
local history, newer, older, format_key, partitions, published, receipt
if aggregate then
    history = KEYS[at_key]
    at_key = at_key + 1
end
if windowed then
    newer, older = KEYS[at_key], KEYS[at_key + 1]
    at_key = at_key + 2
end
if first or waits then
    format_key = KEYS[at_key]
    at_key = at_key + 1
end
if assumed then
    partitions = KEYS[at_key]
    at_key = at_key + 1
end
if publish then
    published = KEYS[at_key]
    at_key = at_key + 1
end
if once then receipt = KEYS[at_key] end

if assumed then
    local found = redis.call('GET', partitions)
    if found and found ~= '1' then return {PARTITIONS, tonumber(found)} end
end

local unformatted = false
if first then
    local format = redis.call('GET', format_key)
    if not format then
        unformatted = true
    elseif format ~= '1' then
        return {FORMAT, format}
    end
    local writes = {{'XADD', feed, '*', 'type', ''}, {'SET', format_key, '1'}}
    if aggregate then table.insert(writes, {'RPUSH', history, ''}) end
    if once then table.insert(writes, {'SET', receipt, '', 'PX', '1'}) end
    if windowed then
        table.insert(writes, {'HSET', newer, '', ''})
        table.insert(writes, {'EXPIRE', newer, '1'})
        table.insert(writes, {'RENAME', newer, older})
        table.insert(writes, {'UNLINK', older})
    end
    for _, write in ipairs(writes) do
        if not redis.acl_check_cmd(unpack(write)) then return {FORBIDDEN, write[1]} end
    end
end

local version = 0
if aggregate then
    local last = redis.call('LINDEX', history, -1)
    if last then
        version = tonumber(string.match(last, '^%[1,(%d+),'))
        if not version then return {UNREADABLE, string.sub(last, 1, 100)} end
    end
end

-- What is to be replied where the events of this append follow on a version already; else nothing.
local function repeated_after(before)
    if before + count > version then return nil end
    -- Counted from the end: the beginning may have been compacted away.
    local from = before - version
    local stored = redis.call('LRANGE', history, from, from + count - 1)
    if #stored ~= count then return nil end
    for i = 1, count do
        local start = string.format('[1,%d,"%s"', before + i, ARGV[FIRST + (i - 1) * step])
        if string.sub(stored[i], 1, #start) ~= start then return nil end
    end
    -- It must reach the replicas, too. They get what is written in order, so any write that comes after
    -- it does.
    if waits then redis.call('SET', format_key, '1') end
    table.insert(stored, 1, REPEATED)
    return stored
end

if once then
    local done = redis.call('GET', receipt)
    if done then
        local from, to = string.match(done, '^(%d+)-(%d+)$')
        from, to = tonumber(from), tonumber(to)
        local repeated = to - from + 1 == count and repeated_after(from - 1)
        if repeated then return repeated end
        if waits then redis.call('SET', format_key, '1') end
        return {DONE, from, to}
    end
end

if expected >= 0 then
    if expected ~= version then
        return repeated_after(expected) or {CONFLICT, version}
    end
elseif expected == EXISTS and version == 0 then
    return {CONFLICT, 0}
end

-- Whether the event that lies at `place`, as it is remembered, is one of this aggregate; or of none,
-- where this append is to none.
local function lies_here(id, place)
    local at = tonumber(string.match(place, ':(%d+)$'))
    if not aggregate or at == 0 then return not aggregate and at == 0 end
    if at > version then return false end
    local element = redis.call('LINDEX', history, at - version - 1)
    -- What the history no longer has cannot be compared.
    if not element then return true end
    local start = string.format('[1,%d,"%s"', at, id)
    return string.sub(element, 1, #start) == start
end

-- Where events lie that are known already, by their number in this append.
local known
local unknown = count
local known_count, known_since = 0, nil
if windowed then
    known = {}
    local from = 1
    while from <= count do
        local ids = {}
        for i = from, math.min(from + AT_ONCE - 1, count) do
            ids[#ids + 1] = ARGV[FIRST + (i - 1) * step]
        end
        local old = redis.call('HMGET', older, unpack(ids))
        local n = #ids
        ids[n + 1], ids[n + 2] = 'count', 'since'
        local new = redis.call('HMGET', newer, unpack(ids))
        known_count, known_since = tonumber(new[n + 1] or 0), tonumber(new[n + 2] or nil)
        for i = 1, n do
            local place = new[i] or old[i]
            if place then
                if not lies_here(ids[i], place) then return {TAKEN, ids[i]} end
                known[from + i - 1] = place
                unknown = unknown - 1
            end
        end
        from = from + n
    end
end

local reply
if unknown == count then
    reply = {STORED, version + 1}
else
    reply = {IN_PART}
    if unknown == 0 then
        if waits then redis.call('SET', format_key, '1') end
        for i = 1, count do reply[i + 1] = '=' .. known[i] end
        return reply
    end
end
local in_part = unknown < count

-- From here on nothing may fail.

if once then
    local done = string.format('%d-%d', version + 1, version + unknown)
    redis.call('SET', receipt, done, 'PX', ARGV[FIRST - 1])
end

local elements, places
if count > 1 then elements = {} end
if windowed then places = {} end
local position
for i = 1, count do
    local at = FIRST + (i - 1) * step
    if known and known[i] then
        reply[i + 1] = '=' .. known[i]
    else
        local place
        if aggregate then
            version = version + 1
            local number = string.format('%d', version)
            position = redis.call('XADD', feed, '*', 'type', ARGV[at + 1], 'payload', ARGV[at + 2],
                'aggregate', head .. number .. '}', 'metadata', ARGV[at + 3])
            local element = '[1,' .. number .. ',"' .. ARGV[at] .. '","' .. ARGV[at + 1] .. '",'
                .. ARGV[at + 2] .. ',"' .. position .. '",' .. ARGV[at + 4]
            if elements then
                elements[#elements + 1] = element
            else
                redis.call('RPUSH', history, element)
            end
            if windowed then place = position .. ':' .. number end
        else
            position = redis.call('XADD', feed, '*', 'type', ARGV[at + 1], 'payload', ARGV[at + 2],
                'metadata', ARGV[at + 3])
            if windowed then place = position .. ':0' end
        end
        if windowed then
            places[#places + 1] = ARGV[at]
            places[#places + 1] = place
        end
        if in_part then
            reply[i + 1] = place
        else
            reply[i + 2] = position
        end
    end
end

if elements then
    for from = 1, #elements, AT_ONCE do
        local to = math.min(from + AT_ONCE - 1, #elements)
        redis.call('RPUSH', history, unpack(elements, from, to))
    end
end

if windowed then
    local now = tonumber(string.match(position, '^%d+'))
    if known_since and (known_count + unknown > remembered or now - known_since > DAY) then
        redis.call('UNLINK', older)
        redis.call('RENAME', newer, older)
        known_count, known_since = 0, nil
    end
    places[#places + 1] = 'count'
    places[#places + 1] = string.format('%d', known_count + unknown)
    if not known_since then
        places[#places + 1] = 'since'
        places[#places + 1] = string.format('%d', now)
    end
    for from = 1, #places, AT_ONCE do
        redis.call('HSET', newer, unpack(places, from, math.min(from + AT_ONCE - 1, #places)))
    end
    -- Whatever becomes of it, it stays for one day after it has become the older one.
    if not known_since then redis.call('EXPIRE', newer, 2 * DAY / 1000) end
end

if unformatted then redis.call('SET', format_key, '1') end

if publish then
    local failure
    local incarnation = current_incarnation(published)
    for i = 1, count do
        if not (known and known[i]) then
            local at = FIRST + (i - 1) * step
            local why = publish_event(published, incarnation, ARGV[at + 1], ARGV[at + message_at])
            failure = why or failure
        end
    end
    if failure and not in_part then reply[#reply + 1] = failure end
end

return reply
