#!lua
-- Looks which entries of a feed the histories of their aggregates do not have; puts them at the end of these,
-- if that is wanted.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the feed, under which version entries were adopted
--       the histories
--
-- ARGV  `look` or `adopt`
--       for each entry: which of the histories it belongs to, counted from 1; its position; the version that
--         it says it has, 0 where it says none; the id of its event, its type; the element of the history
--         from behind the position on, which is empty where it is only looked at
--
-- Replies with the positions of what is still in the feed and the histories do not have; or those that were adopted now.

local feed, adopted = KEYS[1], KEYS[2]
local adopts = ARGV[1] == 'adopt'
local FIRST, STEP = 2, 6
local count = (#ARGV - FIRST + 1) / STEP

local function version_of(element)
    local version = tonumber(string.match(element, '^%[1,(%d+),') or nil)
    if not version then
        error({err = 'ERR an element of a history cannot be read: ' .. string.sub(element, 1, 100)})
    end
    return version
end

-- The first and the last version of each history.
local lowest, highest = {}, {}
for n = 3, #KEYS do
    local first, last = redis.call('LINDEX', KEYS[n], 0), redis.call('LINDEX', KEYS[n], -1)
    lowest[n] = first and version_of(first) or 1
    highest[n] = last and version_of(last) or 0
    if adopts and not redis.acl_check_cmd('RPUSH', KEYS[n], '') then
        return redis.error_reply('NOPERM this user may not use RPUSH on ' .. KEYS[n])
    end
end
if adopts and not redis.acl_check_cmd('HSET', adopted, '', '') then
    return redis.error_reply('NOPERM this user may not use HSET on ' .. adopted)
end
redis.call('HLEN', adopted)

local function is_known(history, position, claimed, id)
    if redis.call('HEXISTS', adopted, position) == 1 then return true end
    if claimed == 0 or claimed > highest[history] then return false end
    -- What was dropped behind a snapshot cannot be compared.
    if claimed < lowest[history] then return true end
    local element = redis.call('LINDEX', KEYS[history], claimed - highest[history] - 1)
    local start = string.format('[1,%d,"%s"', claimed, id)
    return element and string.sub(element, 1, #start) == start
end

-- The payload of an entry; nothing where the feed does not have it any more.
local function payload_at(position)
    local entry = redis.call('XRANGE', feed, position, position)[1]
    if not entry then return nil end
    local payload
    for i = 1, #entry[2], 2 do
        if entry[2][i] == 'payload' then payload = entry[2][i + 1] end
    end
    return payload
end

local found = {}
for n = 0, count - 1 do
    local at = FIRST + n * STEP
    local history, position = tonumber(ARGV[at]) + 2, ARGV[at + 1]
    local id = ARGV[at + 3]
    if not is_known(history, position, tonumber(ARGV[at + 2]), id) then
        -- Of what is trimmed away meanwhile it is not known any more whether it was adopted.
        local payload = payload_at(position)
        if payload and adopts then
            local version = string.format('%d', highest[history] + 1)
            redis.call('RPUSH', KEYS[history], '[1,' .. version .. ',"' .. id .. '","' .. ARGV[at + 4]
                .. '",' .. payload .. ',"' .. position .. '",' .. ARGV[at + 5])
            redis.call('HSET', adopted, position, version)
            highest[history] = highest[history] + 1
        end
        if payload then found[#found + 1] = position end
    end
end
return found
