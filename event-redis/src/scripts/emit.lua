-- Emitting: what stands in front of every script that stores what handlers have emitted, and what they
-- could not handle.
--
-- What is emitted follows at some argument, and its keys at some key:
--
-- KEYS  for each partition that something is emitted to: the feed,
--         the format                         with the flag f
--         the number of partitions           with the flag o
--         the numbers of published events    with the flag p
--         instead of all these, with the flag x: the numbers of the outboxes, the outbox
--       for each append to an aggregate: its history, but for those to a partition with the flag x
--
-- ARGV  for each partition, flags:
--         f  first append of this client to this feed: see whether the client may write it
--         o  the client takes it that the category has one partition: see whether it has
--         p  publish each event that is stored
--         x  it may lie in another slot: what is emitted to it goes to an outbox. Behind the flags then
--            follow its feed, and a number that the outbox is at already, at least
--       for each append: which run of a handler it is of, the partition counted from 1, the aggregate
--         as JSON up to its version (empty: none), the number of events, and for each of them type,
--         payload, metadata,
--         id, the element of the history from behind the position on     if there is an aggregate
--         the message up to the name of its publisher                    with the flag p
--
-- What is replied of it:
--   refused     for each run that is refused: the run, why, and more about it; the reasons are those
--               of append.lua, or
--                 9 failed  the server's answer
--   partitions  the number of the partition as above, and the number that its category has
--   full        the number of the partition as above whose outbox has no room
--   stored      for each append the first version and the position of each event; -1 alone where its
--               run is left out; -2 and the number of its last record where it went to an outbox

local UNREADABLE, FORMAT, FORBIDDEN, FAILED = 4, 5, 6, 9
local END = '18446744073709551615-18446744073709551615'
-- Lua cannot hand over more than some thousands of arguments at once.
local AT_ONCE = 1000
-- So many events has a record of an outbox at most.
local EVENTS_PER_RECORD = 500
-- An outbox with so many records, or of so many bytes, has no room for more.
local MOST_RECORDS, MOST_BYTES = 10000, 16 * 1024 * 1024

-- Numbers of outboxes that are given out first by a process of the server are a multiple of this, and 1.
-- There are so many for each hundredth of a second since 1970.
local NUMBERS_AT_ONCE = 16384

-- Which process of the server this is; nothing where the client may not ask.
local known_run
local function current_run()
    if not known_run then
        local info = redis.pcall('INFO', 'server')
        known_run = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
    end
    return known_run
end

-- A number that none was given out behind, also where this server does not know any more what was: it may
-- have lost what it had acknowledged, or have taken over without the last of it.
local function fresh_number()
    local time = redis.call('TIME')
    return (time[1] * 100 + math.floor(time[2] / 10000)) * NUMBERS_AT_ONCE
end

-- Looks whether an outbox can be written, how far it is, and whether it has room.
local function read_outbox(target)
    local last = redis.pcall('HGET', target.numbers, target.name)
    local length = redis.pcall('XLEN', target.outbox)
    if type(last) == 'table' then
        target.reason, target.text = FAILED, last.err
    elseif type(length) == 'table' then
        target.reason, target.text = FAILED, length.err
    elseif not redis.acl_check_cmd('XADD', target.outbox, '1-0', 'type', '') then
        target.reason, target.text = FORBIDDEN, 'XADD'
    elseif not redis.acl_check_cmd('HSET', target.numbers, target.name, '1') then
        target.reason, target.text = FORBIDDEN, 'HSET'
    else
        if not last and length > 0 then
            -- Somebody has deleted it.
            local newest = redis.call('XREVRANGE', target.outbox, '+', '-', 'COUNT', '1')
            last = string.match(newest[1][1], '^%d+')
        end
        local number, run = string.match(last or '', '^(%d+) ?(%x*)')
        target.run = current_run()
        -- Never a number that the target has met: of what this server may have lost.
        target.number = math.max(tonumber(number or 0), target.number)
        if not number or run ~= target.run then
            target.number = math.max(fresh_number(), target.number)
        end
        -- A client that may not ask for the bytes is held to the records alone.
        local bytes = length > 0 and redis.pcall('MEMORY', 'USAGE', target.outbox, 'SAMPLES', '100')
        target.is_full = length >= MOST_RECORDS or (type(bytes) == 'number' and bytes >= MOST_BYTES)
    end
end

-- Reads what is emitted, and looks whether all of it can be stored, but for runs that are left out.
-- Gives what the functions below want, or nil and what is refused, or two times nil and the number of
-- partitions that another is taken for, or three times nil and the partition whose outbox has no room.
local function read_emits(at, at_key, target_count, append_count, left_out)
    local targets = {}
    for n = 1, target_count do
        local target_flags = ARGV[at]
        at = at + 1
        local target = {feed = KEYS[at_key], width = 3}
        at_key = at_key + 1
        targets[n] = target
        local is_elsewhere = string.find(target_flags, 'x', 1, true)
        if is_elsewhere then
            target.numbers, target.outbox = target.feed, KEYS[at_key]
            at_key = at_key + 1
            target.name, target.number = ARGV[at], tonumber(ARGV[at + 1])
            at = at + 2
            if string.find(target_flags, 'p', 1, true) then target.width = 4 end
            read_outbox(target)
        else
            -- This also tells a key of another type, and a stream that takes no more.
            local newest = redis.pcall('XRANGE', target.feed, END, '+', 'COUNT', '1')
            if newest.err then
                target.reason, target.text = FAILED, newest.err
            elseif #newest > 0 then
                target.reason, target.text = FAILED, 'the stream has an entry at the last possible id'
            end
        end
        if target_flags ~= '' and not is_elsewhere then
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
                    return nil, nil, {n, tonumber(count)}
                end
            end
            if string.find(target_flags, 'p', 1, true) then
                target.published = KEYS[at_key]
                target.width = 4
                at_key = at_key + 1
            end
        end
    end

    local refused = {}
    local refused_run, full
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
        local is_left_out = left_out and left_out[run]
        if not is_left_out then
            if target.reason then refuse(run, target.reason, target.text) end
            if target.is_full then full = tonumber(ARGV[at + 1]) end
        end
        if ARGV[at + 2] ~= '' then width = width + 2 end
        if ARGV[at + 2] ~= '' and not target.outbox then
            local history = KEYS[at_key]
            at_key = at_key + 1
            history_of[n] = history
            if not is_left_out and not versions[history] then
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
    if refused_run then return nil, refused end
    if full then return nil, nil, nil, full end
    return {
        targets = targets, versions = versions, elements = elements, histories = histories,
        history_of = history_of, first = first_append, count = append_count, left_out = left_out,
    }
end

-- Adds an append to the outbox of its target.
local function record(target, head, at, count)
    local names, width = {'type', 'payload', 'metadata'}, target.width
    if head ~= '' then
        names[4], names[5] = 'id', 'history'
        width = width + 2
    end
    if target.width == 4 then names[#names + 1] = 'message' end
    for from = 0, count - 1, EVENTS_PER_RECORD do
        local fields = {}
        if head ~= '' then fields[1], fields[2] = 'aggregate', head end
        for n = from, math.min(from + EVENTS_PER_RECORD, count) - 1 do
            for i = 1, width do
                fields[#fields + 1] = names[i]
                fields[#fields + 1] = ARGV[at + n * width + i - 1]
            end
        end
        target.number = target.number + 1
        redis.call('XADD', target.outbox, string.format('%d-0', target.number), unpack(fields))
    end
end

-- Stores what is emitted, and adds to the reply where it lies.
local function store_emits(emits, reply, size)
    local targets, versions, elements = emits.targets, emits.versions, emits.elements
    local left_out, at = emits.left_out, emits.first
    for n = 1, emits.count do
        local target, head = targets[tonumber(ARGV[at + 1])], ARGV[at + 2]
        local count = tonumber(ARGV[at + 3])
        local is_left_out = left_out and left_out[tonumber(ARGV[at])]
        at = at + 4
        local into, history = target.feed, emits.history_of[n]
        size = size + 1
        if is_left_out then
            local width = target.width
            if head ~= '' then width = width + 2 end
            reply[size] = -1
            at = at + width * count
        elseif target.outbox then
            local width = target.width
            if head ~= '' then width = width + 2 end
            target.is_used = true
            record(target, head, at, count)
            reply[size] = -2
            size = size + 1
            reply[size] = target.number
            at = at + width * count
        elseif history then
            target.is_used = true
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
            target.is_used = true
            reply[size] = 0
            for _ = 1, count do
                size = size + 1
                reply[size] = redis.call('XADD', into, '*', 'type', ARGV[at], 'payload', ARGV[at + 1],
                    'metadata', ARGV[at + 2])
                at = at + target.width
            end
        end
    end
    for _, history in ipairs(emits.histories) do
        local of_history = elements[history]
        for from = 1, #of_history, AT_ONCE do
            local to = math.min(from + AT_ONCE - 1, #of_history)
            redis.call('RPUSH', history, unpack(of_history, from, to))
        end
    end
    for _, target in ipairs(targets) do
        if target.format_key and target.is_used then redis.call('SET', target.format_key, '1') end
        if target.outbox and target.is_used then
            redis.call('HSET', target.numbers, target.name,
                string.format('%d %s', target.number, target.run))
        end
    end
end

-- Publishes what is emitted, where that is wanted. Gives why an event was not published, if so.
local function publish_emits(emits)
    local targets, left_out, at = emits.targets, emits.left_out, emits.first
    local why
    for n = 1, emits.count do
        local target, count = targets[tonumber(ARGV[at + 1])], tonumber(ARGV[at + 3])
        local is_left_out = left_out and left_out[tonumber(ARGV[at])]
        local width = target.width
        if ARGV[at + 2] ~= '' then width = width + 2 end
        at = at + 4
        if target.published and not is_left_out then
            -- It takes an INFO, so it is asked for once.
            target.incarnation = target.incarnation or current_incarnation(target.published)
            local incarnation = target.incarnation
            for _ = 1, count do
                why = publish_event(target.published, incarnation, ARGV[at], ARGV[at + width - 1]) or why
                at = at + width
            end
        else
            at = at + width * count
        end
    end
    return why
end

-- Keeps an entry of the feed among the dead letters.
local function park(dead, order, raw, feed, name, member, letter)
    redis.call('HSET', dead, name, letter)
    redis.call('ZADD', order, '0', member)
    -- What was kept of it before is kept: the feed may have been trimmed since.
    if redis.call('HEXISTS', raw, name) == 0 then
        local position = string.match(name, '^[^/]+')
        local entry = redis.call('XRANGE', feed, position, position)[1]
        if entry and entry[2] then redis.call('HSET', raw, name, cmsgpack.pack(entry[2])) end
    end
end

