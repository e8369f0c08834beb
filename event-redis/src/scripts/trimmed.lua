-- What was trimmed away: what stands in front of every script that must know it.

-- Positions do not fit into a Lua number, so they are compared as texts.
local function shorter(a, b)
    if #a ~= #b then return #a < #b end
    return a < b
end
local function before(a, b)
    local a_time, a_number = string.match(a, '^(%d+)-(%d+)$')
    local b_time, b_number = string.match(b, '^(%d+)-(%d+)$')
    if a_time ~= b_time then return shorter(a_time, b_time) end
    return shorter(a_number, b_number)
end

-- The position right before one, or that one itself where its number does not fit into a Lua number.
local function preceding(position)
    local time, number = string.match(position, '^(%d+)-(%d+)$')
    if number == '0' then
        if time == '0' then return position end
        return string.format('%.0f-18446744073709551615', tonumber(time) - 1)
    end
    if tonumber(number) >= 2 ^ 53 then return position end
    return string.format('%s-%.0f', time, tonumber(number) - 1)
end

-- What a stream says of itself; nothing where there is none.
local function info_of(feed)
    local info = {}
    if redis.call('EXISTS', feed) == 1 then
        local said = redis.call('XINFO', 'STREAM', feed)
        for i = 1, #said, 2 do info[said[i]] = said[i + 1] end
    end
    return info
end

-- Up to where a feed was trimmed away.
local function trimmed_up_to(trimmed, info)
    local known = redis.call('HMGET', trimmed, 'position', 'removed')
    local up_to = known[1] or '0-0'
    local removed = (info['entries-added'] or 0) - (info['length'] or 0)
    if removed <= tonumber(known[2] or 0) then return up_to end
    -- Somebody else has removed more. What was deleted behind the first entry is not trimmed away.
    local theirs = '0-0'
    local first = info['first-entry']
    if not first then
        theirs = info['last-generated-id']
    elseif before(info['max-deleted-entry-id'] or '0-0', first[1]) then
        theirs = preceding(first[1])
    end
    if before(up_to, theirs) then return theirs end
    return up_to
end

