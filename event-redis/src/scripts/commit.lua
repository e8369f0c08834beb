-- Stores what the owner of a partition has done since the last commit: its progress, what was
-- emitted, and dead letters. All of it or nothing.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the group's progress, the feed
--       the group's dead letters, their order, their raw entries
--       for each partition that something is emitted to: the feed,
--         the format                         with the flag f
--         the number of partitions           with the flag o
--         the numbers of published events    with the flag p
--       for each append to an aggregate: its history
--
-- ARGV  the instance, the epoch, the number of the commit, the name of the group
--       flags:
--         r  the client waits for replicas, so that a repetition must write something
--         e  the epoch is not looked at      (both only to show that a test
--         n  nor the number                   finds what comes of it)
--       the checkpoint, the id of the event there, up to where everything is finished but for what is
--         open, what is open
--       how many entries were finished
--       the numbers of new dead letters, of those tried in vain, of those resolved, of partitions and
--         of appends
--       for each new dead letter: its name, how it stands in the order, itself
--       for each that was tried in vain: its name, itself
--       for each that is resolved: its name, how it stands in the order
--       for each partition, flags:
--         f  first append of this client to this feed: see whether the client may write it
--         o  the client takes it that the category has one partition: see whether it has
--         p  publish each event that is stored
--       for each append: which run of a handler it is of, the partition counted from 1, the aggregate
--         as JSON up to its version (empty: none), the number of events, and for each of them type,
--         payload, metadata,
--         id, the element of the history from behind the position on     if there is an aggregate
--         the message up to the name of its publisher                    with the flag p
--
-- Replies with a status, and
--   0 stored      the number of dead letters; why an event was not published, or nothing; for each
--                 append the first version and the position of each event
--   1 repeated    the number of dead letters
--   2 lost        nothing
--   3 refused     for each run that is refused: the run, why, and more about it; the reasons are
--                 those of append.lua, or
--                   9 failed  the server's answer
--   4 partitions  the number of the partition as above, and the number that its category has

local STORED, REPEATED, LOST, REFUSED, PARTITIONS = 0, 1, 2, 3, 4
local UNREADABLE, FORMAT, FORBIDDEN, FAILED = 4, 5, 6, 9
local END = '18446744073709551615-18446744073709551615'
-- Lua cannot hand over more than some thousands of arguments at once.
local AT_ONCE = 1000
local FIRST = 16

local progress, feed, dead, order, raw = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local number = tonumber(ARGV[3])
local group = ARGV[4]
local flags = ARGV[5]
local checkpoint = ARGV[6]
local finished = tonumber(ARGV[10])
local parked, retried, resolved = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local target_count, append_count = tonumber(ARGV[14]), tonumber(ARGV[15])

local waits, any_epoch, any_number = false, false, false
if flags ~= '' then
    waits = string.find(flags, 'r', 1, true)
    any_epoch = string.find(flags, 'e', 1, true)
    any_number = string.find(flags, 'n', 1, true)
end

local known = redis.call('HMGET', progress, 'owner', 'epoch', 'commit', 'checkpoint', 'finished')
if not any_epoch and (known[1] ~= ARGV[1] or known[2] ~= ARGV[2]) then return {LOST} end
local letters = redis.call('HLEN', dead)
if not any_number and number <= tonumber(known[3] or 0) then
    -- It must reach the replicas, too. They get what is written in order, so any write that comes
    -- after it does.
    if waits then redis.call('HSET', progress, 'commit', known[3]) end
    return {REPEATED, letters}
end
local finished_before = tonumber(known[5] or 0)
if parked + retried + resolved > 0 then
    redis.call('ZCARD', order)
    redis.call('HLEN', raw)
end

local at_key = 6
local at = FIRST + parked * 3 + retried * 2 + resolved * 2
local targets = {}
for n = 1, target_count do
    local target_flags = ARGV[at]
    at = at + 1
    local target = {feed = KEYS[at_key], width = 3}
    at_key = at_key + 1
    targets[n] = target
    -- This also tells a key of another type, and a stream that takes no more.
    local newest = redis.pcall('XRANGE', target.feed, END, '+', 'COUNT', '1')
    if newest.err then
        target.reason, target.text = FAILED, newest.err
    elseif #newest > 0 then
        target.reason, target.text = FAILED, 'the stream has an entry at the last possible id'
    end
    if target_flags ~= '' then
        if string.find(target_flags, 'f', 1, true) then
            target.first = true
            local format_key = KEYS[at_key]
            at_key = at_key + 1
            local format = redis.pcall('GET', format_key)
            if not format then
                target.format_key = format_key
            elseif type(format) == 'table' then
                target.reason, target.text = FAILED, format.err
            elseif format ~= '1' then
                target.reason, target.text = FORMAT, format
            end
            if not redis.acl_check_cmd('XADD', target.feed, '*', 'type', '') then
                target.reason, target.text = FORBIDDEN, 'XADD'
            elseif not redis.acl_check_cmd('SET', format_key, '1') then
                target.reason, target.text = FORBIDDEN, 'SET'
            end
        end
        if string.find(target_flags, 'o', 1, true) then
            local count = redis.pcall('GET', KEYS[at_key])
            at_key = at_key + 1
            if type(count) == 'table' then
                target.reason, target.text = FAILED, count.err
            elseif count and count ~= '1' then
                return {PARTITIONS, n, tonumber(count)}
            end
        end
        if string.find(target_flags, 'p', 1, true) then
            target.published = KEYS[at_key]
            target.width = 4
            at_key = at_key + 1
        end
    end
end

local refused = {REFUSED}
local refused_run
local function refuse(run, reason, text)
    if run ~= refused_run then
        refused[#refused + 1] = run
        refused[#refused + 1] = reason
        refused[#refused + 1] = text
        refused_run = run
    end
end

-- The version of each aggregate, and what its history gets.
local versions, elements = {}, {}
local histories, history_of = {}, {}
local first_append = at
for n = 1, append_count do
    local run, target = tonumber(ARGV[at]), targets[tonumber(ARGV[at + 1])]
    local width = target.width
    if target.reason then refuse(run, target.reason, target.text) end
    if ARGV[at + 2] ~= '' then
        width = width + 2
        local history = KEYS[at_key]
        at_key = at_key + 1
        history_of[n] = history
        if not versions[history] then
            local version = 0
            local last = redis.pcall('LINDEX', history, -1)
            if type(last) == 'table' then
                refuse(run, FAILED, last.err)
            elseif last then
                version = tonumber(string.match(last, '^%[1,(%d+),'))
                if not version then
                    refuse(run, UNREADABLE, string.sub(last, 1, 100))
                    version = 0
                end
            end
            if target.first and not redis.acl_check_cmd('RPUSH', history, '') then
                refuse(run, FORBIDDEN, 'RPUSH')
            end
            versions[history] = version
            elements[history] = {}
            histories[#histories + 1] = history
        end
    end
    at = at + 4 + width * ARGV[at + 3]
end
if refused_run then return refused end

-- From here on nothing may fail.

local reply = {STORED, letters, ''}
local size = 3
at = first_append
for n = 1, append_count do
    local target, head = targets[tonumber(ARGV[at + 1])], ARGV[at + 2]
    local count = tonumber(ARGV[at + 3])
    at = at + 4
    local into, history = target.feed, history_of[n]
    size = size + 1
    if history then
        local version, of_history = versions[history], elements[history]
        reply[size] = version + 1
        for _ = 1, count do
            version = version + 1
            local counted = string.format('%d', version)
            local position = redis.call('XADD', into, '*', 'type', ARGV[at], 'payload', ARGV[at + 1],
                'aggregate', head .. counted .. '}', 'metadata', ARGV[at + 2])
            of_history[#of_history + 1] = '[1,' .. counted .. ',"' .. ARGV[at + 3] .. '","' .. ARGV[at]
                .. '",' .. ARGV[at + 1] .. ',"' .. position .. '",' .. ARGV[at + 4]
            size = size + 1
            reply[size] = position
            at = at + target.width + 2
        end
        versions[history] = version
    else
        reply[size] = 0
        for _ = 1, count do
            size = size + 1
            reply[size] = redis.call('XADD', into, '*', 'type', ARGV[at], 'payload', ARGV[at + 1],
                'metadata', ARGV[at + 2])
            at = at + target.width
        end
    end
end
for _, history in ipairs(histories) do
    local of_history = elements[history]
    for from = 1, #of_history, AT_ONCE do
        local to = math.min(from + AT_ONCE - 1, #of_history)
        redis.call('RPUSH', history, unpack(of_history, from, to))
    end
end
for _, target in ipairs(targets) do
    if target.format_key then redis.call('SET', target.format_key, '1') end
end

local finished_now = string.format('%d', finished_before + finished)
redis.call('HSET', progress, 'checkpoint', checkpoint, 'event', ARGV[7], 'reached', ARGV[8],
    'open', ARGV[9], 'finished', finished_now, 'commit', ARGV[3])

if parked + retried + resolved > 0 then
    at = FIRST
    for _ = 1, parked do
        local name, member = ARGV[at], ARGV[at + 1]
        redis.call('HSET', dead, name, ARGV[at + 2])
        redis.call('ZADD', order, '0', member)
        -- What was kept of it before is kept: the feed may have been trimmed since.
        if redis.call('HEXISTS', raw, name) == 0 then
            local position = string.match(name, '^[^/]+')
            local entry = redis.call('XRANGE', feed, position, position)[1]
            if entry and entry[2] then redis.call('HSET', raw, name, cmsgpack.pack(entry[2])) end
        end
        at = at + 3
    end
    for _ = 1, retried do
        -- One that was discarded meanwhile stays so.
        if redis.call('HEXISTS', dead, ARGV[at]) == 1 then
            redis.call('HSET', dead, ARGV[at], ARGV[at + 1])
        end
        at = at + 2
    end
    for _ = 1, resolved do
        redis.call('HDEL', dead, ARGV[at])
        redis.call('ZREM', order, ARGV[at + 1])
        redis.call('HDEL', raw, ARGV[at])
        at = at + 2
    end
    reply[2] = redis.call('HLEN', dead)
end

-- A native group shows the lag to whoever looks at the stream. Nothing depends on it.
if finished > 0 or checkpoint ~= known[4] then
    local set = redis.pcall('XGROUP', 'SETID', feed, group, checkpoint, 'ENTRIESREAD', finished_now)
    if set.err then
        redis.pcall('XGROUP', 'CREATE', feed, group, checkpoint, 'ENTRIESREAD', finished_now)
    end
end

at = first_append
for n = 1, append_count do
    local target, count = targets[tonumber(ARGV[at + 1])], tonumber(ARGV[at + 3])
    local width = target.width
    if history_of[n] then width = width + 2 end
    at = at + 4
    if target.published then
        -- It takes an INFO, so it is asked for once.
        target.incarnation = target.incarnation or current_incarnation(target.published)
        local incarnation = target.incarnation
        for _ = 1, count do
            local why = publish_event(target.published, incarnation, ARGV[at], ARGV[at + width - 1])
            reply[3] = why or reply[3]
            at = at + width
        end
    else
        at = at + width * count
    end
end

return reply
