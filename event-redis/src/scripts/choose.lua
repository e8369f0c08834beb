#!lua
-- Redrives or discards the dead letters that are chosen, all of them in one step.
--
-- KEYS  the dead letters, their order, their raw entries
--
-- ARGV  what becomes of them: `redrive` or `discard`
--       how they are chosen: `one`, `key`, `handler` or `all`
--       for one: how it stands in the order; for the others: the key, the handler, nothing
--
-- Replies with a status, and
--   0 done       how many there were
--   1 not first  the key, and the first dead letter of it
--   2 forbidden  the command that the client may not use

local DONE, NOT_FIRST, FORBIDDEN = 0, 1, 2
-- Letters that are looked at together.
local AT_ONCE = 500

local dead, order, raw = KEYS[1], KEYS[2], KEYS[3]
local redrive = ARGV[1] == 'redrive'
local by, value = ARGV[2], ARGV[3]

-- Everything is checked before the first write, since Redis does not roll a script back.
local commands = {{'HSET', dead, '', ''}}
if not redrive then
    commands = {{'HDEL', dead, ''}, {'ZREM', order, ''}, {'HDEL', raw, ''}}
end
for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end
redis.call('ZCARD', order)
redis.call('HLEN', raw)

local function name_of(member)
    return string.gsub(string.sub(member, 1, 20), '^0+(%d)', '%1') .. '-'
        .. string.gsub(string.sub(member, 22, 41), '^0+(%d)', '%1') .. string.sub(member, 42)
end
local function handler_of(member)
    return string.sub(member, 43)
end
local function key_of(letter)
    local is_json, content = pcall(cjson.decode, letter)
    if is_json and type(content) == 'table' and type(content.key) == 'string' then
        return content.key
    end
end

-- Hands each letter between two places of the order to `visit`, until that replies with something.
local function each(from, to, visit)
    while true do
        local members = redis.call('ZRANGE', order, from, to, 'BYLEX', 'LIMIT', '0', AT_ONCE)
        if #members == 0 then return end
        local names = {}
        for i, member in ipairs(members) do names[i] = name_of(member) end
        local letters = redis.call('HMGET', dead, unpack(names))
        for i, member in ipairs(members) do
            local found = visit(member, names[i], letters[i] or '')
            if found then return found end
        end
        if #members < AT_ONCE then return end
        from = '(' .. members[#members]
    end
end

local count = 0
local function treat(member, name, letter)
    count = count + 1
    if redrive then
        -- A quote within a text has a backslash before it, so this is the field itself.
        local marked, times = string.gsub(letter, '"redrive"%s*:%s*false', '"redrive":true')
        if times > 0 then redis.call('HSET', dead, name, marked) end
    else
        redis.call('HDEL', dead, name)
        redis.call('ZREM', order, member)
        redis.call('HDEL', raw, name)
    end
end

if by == 'one' then
    local name = name_of(value)
    local letter = redis.call('HGET', dead, name)
    if not letter then return {DONE, 0} end
    local key = redrive and key_of(letter)
    if key then
        local handler = handler_of(value)
        local first = each('-', '(' .. value, function(member, other, content)
            if handler_of(member) == handler and key_of(content) == key then return other end
        end)
        if first then return {NOT_FIRST, key, first} end
    end
    treat(value, name, letter)
else
    each('-', '+', function(member, name, letter)
        if by == 'all' or by == 'handler' and handler_of(member) == value
            or by == 'key' and key_of(letter) == value then
            treat(member, name, letter)
        end
    end)
end
return {DONE, count}
