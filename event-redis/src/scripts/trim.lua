-- Removes the beginning of a feed, as far as it may go and nobody needs it. A part of it at a time, so that
-- the server can do other things in between.
--
-- KEYS  the feed, what is known of its trimming, the names of its groups
--       which entries were adopted by histories
--       for each group that the client knows: its progress, the names of its handlers with parallel
--         delivery
--       for each of these handlers: what is remembered of its group
--
-- ARGV  how many entries are kept at most, for how many milliseconds, and how many bytes; each of these
--         may be empty
--       who needs the feed of those that have their keys in other slots, the one furthest behind, and behind
--         which position that one needs everything; empty where nobody does
--       the number of groups that the client knows
--       for each of them its name, the number of its handlers, and their names
--
-- Replies with a status, and
--   0 trimmed    how many entries were removed; 1 where there may be more to remove, else 0; up to where
--                the feed is trimmed away now; who needs the next one, and behind which position that one
--                needs everything: both empty where nobody does
--   1 groups     the names of the groups that there are, where the client knows others
--   2 handlers   for each group the number of its handlers, and their names, where the client knows others
--   3 forbidden  the command that the client may not use

local TRIMMED, GROUPS, HANDLERS, FORBIDDEN = 0, 1, 2, 3
-- So many entries, or about so many bytes of them, are removed at a time: they must be read to know them.
local MOST, MOST_BYTES = 1000, 512 * 1024
-- And so many are read at once.
local AT_ONCE = 64

local feed, trimmed, groups, adopted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local most_entries, most_age, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

for _, command in ipairs({
    {'XTRIM', feed, 'MAXLEN', '0'}, {'HSET', trimmed, '', ''}, {'HDEL', adopted, ''},
}) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end

-- What the client knows: the keys were made of it.
local known, by_name, at = {}, {}, 7
for n = 1, tonumber(ARGV[6]) do
    local name, count = ARGV[at], tonumber(ARGV[at + 1])
    known[n] = {name = name, progress = KEYS[5 + (n - 1) * 2], set = KEYS[6 + (n - 1) * 2], handlers = {}}
    by_name[name] = known[n]
    for i = 1, count do known[n].handlers[i] = ARGV[at + 1 + i] end
    at = at + 2 + count
end
local at_key = 5 + #known * 2

local names = redis.call('SMEMBERS', groups)
local all_known = #names == #known
for _, name in ipairs(names) do all_known = all_known and by_name[name] end
if not all_known then return {GROUPS, unpack(names)} end

local found, all_same = {HANDLERS}, true
for _, group in ipairs(known) do
    local there = redis.call('SMEMBERS', group.set)
    local is_known = {}
    for _, name in ipairs(group.handlers) do is_known[name] = true end
    all_same = all_same and #there == #group.handlers
    found[#found + 1] = #there
    for _, name in ipairs(there) do
        all_same = all_same and is_known[name]
        found[#found + 1] = name
    end
end
if not all_same then return found end

local info = info_of(feed)
local length = info['length'] or 0
local function told(removed, more, by, after)
    return {TRIMMED, removed, more, trimmed_up_to(trimmed, info), by or '', after or ''}
end
if length == 0 then return told(0, 0) end

-- Who needs the oldest entries.
local needed_by, needed_after
local function needs(name, after)
    if not needed_after or before(after, needed_after) then
        needed_by, needed_after = name, after
    end
end
if ARGV[4] ~= '' then needs(ARGV[4], ARGV[5]) end
for _, group in ipairs(known) do
    local progress = redis.call('HMGET', group.progress, 'checkpoint', 'start', 'reached')
    -- As in open.lua: it may be owned without being read in order. What is open lies behind the
    -- checkpoint.
    if progress[1] and (progress[2] or progress[3] and progress[3] ~= '0-0') then
        needs(group.name, progress[1])
    end
    for _, handler in ipairs(group.handlers) do
        -- The native group may be lost, and is then made again from this.
        local memory = redis.call('HMGET', KEYS[at_key], 'pending', 'delivered', 'forgotten')
        at_key = at_key + 1
        if memory[2] and not memory[3] then
            local name = group.name .. '/' .. handler
            needs(name, memory[2])
            if memory[1] and memory[1] ~= '' then needs(name, preceding(memory[1])) end
        end
    end
end
for name, group in pairs(groups_of(feed)) do
    needs(name, group['last-delivered-id'])
    if group['pending'] > 0 then
        local pending = redis.call('XPENDING', feed, name, '-', '+', '1')[1]
        if pending then needs(name, preceding(pending[1])) end
    end
end

-- How many entries are too many, and which are too old.
local surplus, oldest = 0, 0
if most_entries then surplus = length - most_entries end
if most_bytes then
    local bytes = redis.pcall('MEMORY', 'USAGE', feed, 'SAMPLES', '100')
    if type(bytes) ~= 'number' then return {FORBIDDEN, 'MEMORY'} end
    surplus = math.max(surplus, length - math.floor(most_bytes * length / bytes))
end
if most_age then
    local time = redis.call('TIME')
    oldest = time[1] * 1000 + math.floor(time[2] / 1000) - most_age
end

local removed, bytes, more, held = {}, 0, 0, false
local from, at_once = '-', 1
while more == 0 and not held do
    local entries = redis.call('XRANGE', feed, from, '+', 'COUNT', at_once)
    local stops = #entries < at_once
    for _, entry in ipairs(entries) do
        local position = entry[1]
        if #removed >= surplus and tonumber(string.match(position, '^%d+')) >= oldest then
            stops = true
            break
        end
        if needed_after and before(needed_after, position) then
            held = true
            break
        end
        removed[#removed + 1] = position
        for _, text in ipairs(entry[2]) do bytes = bytes + #text end
        if #removed >= MOST or bytes >= MOST_BYTES then
            more = 1
            break
        end
    end
    if stops then break end
    if #entries > 0 then from = '(' .. entries[#entries][1] end
    at_once = math.min(at_once * 2, AT_ONCE)
end

if #removed > 0 then
    redis.call('XTRIM', feed, 'MAXLEN', '=', string.format('%d', length - #removed))
    info = info_of(feed)
    redis.call('HSET', trimmed, 'position', removed[#removed],
        'removed', string.format('%d', info['entries-added'] - info['length']))
    redis.call('HDEL', adopted, unpack(removed))
end
if held then return told(#removed, more, needed_by, needed_after) end
return told(#removed, more)
