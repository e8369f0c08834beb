-- What streams say of themselves, and where their entries lie: what stands in front of scripts that ask.

-- What Redis replies as names and values, one behind the other, by name.
local function fields(said)
    local fields = {}
    for i = 1, #said, 2 do fields[said[i]] = said[i + 1] end
    return fields
end

-- What a stream says of itself; nothing where there is none.
local function info_of(feed)
    if redis.call('EXISTS', feed) == 0 then return {} end
    return fields(redis.call('XINFO', 'STREAM', feed))
end

-- What the native groups of a stream that is there say of themselves, by their names.
local function groups_of(feed)
    local groups = {}
    for _, said in ipairs(redis.call('XINFO', 'GROUPS', feed)) do
        local group = fields(said)
        groups[group['name']] = group
    end
    return groups
end

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

