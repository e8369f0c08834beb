-- Forgets what a group has done in a partition, or moves the group to another place there. All of it
-- in one step, and only where nobody owns the partition.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  the group's progress, the feed
--       the group's dead letters, their order, their raw entries
--       the names of the group's handlers with parallel delivery
--       the names of the feed's groups, what is known of its trimming
--       for each of these: what is remembered of its group
--
-- ARGV  the name of the group
--       `forget`, or where the group is to go on: see open.lua
--       the names of its handlers with parallel delivery, as far as the client knows them
--
-- Replies with a status, and
--   0 done       nothing
--   1 count      nothing: what the group will have passed over is to be counted first
--   2 forbidden  the command that the client may not use
--   3 owned      by which instance, and for how many milliseconds
--   4 handlers   the names of the handlers that there are, where the client knows others
--   5 trimmed    up to where the feed is trimmed away, where the group would go on before that

local DONE, COUNT, FORBIDDEN, OWNED, HANDLERS, TRIMMED = 0, 1, 2, 3, 4, 5
local FIRST = 6
-- Letters that are removed together.
local AT_ONCE = 500

local progress, feed, dead, order, raw, handlers =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local groups, trimmed = KEYS[7], KEYS[8]
local FIRST_MEMORY = 9
local group = ARGV[1]
local forget = ARGV[2] == 'forget'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', progress, 'owner', 'until', 'start', 'reached')
local owner, ends = known[1], tonumber(known[2] or nil)
if owner and owner ~= '' and ends and ends > now then return {OWNED, owner, ends - now} end

local names = redis.call('SMEMBERS', handlers)
local is_known = {}
for i = FIRST, #ARGV do is_known[ARGV[i]] = true end
local all_known = #names == #ARGV - FIRST + 1
for _, name in ipairs(names) do all_known = all_known and is_known[name] end
if not all_known then return {HANDLERS, unpack(names)} end

local info = info_of(feed)
if not forget and ARGV[2] ~= 'now' then
    local gone = trimmed_up_to(trimmed, info)
    if before(ARGV[5], gone) then return {TRIMMED, gone} end
end
local from = '0-0'
local added = info['entries-added'] or 0
local finished = added - (info['length'] or 0)
if ARGV[2] == 'now' then
    from = info['last-generated-id'] or from
    finished = added
elseif ARGV[2] == 'after' then
    if ARGV[4] == '' then return {COUNT} end
    from = ARGV[3]
    finished = tonumber(ARGV[4])
end
finished = string.format('%d', finished)

for _, command in ipairs({
    {'HINCRBY', progress, 'epoch', '1'}, {'HDEL', progress, 'owner'}, {'HSET', progress, '', ''},
    {'DEL', dead, order, raw, handlers}, {'HDEL', dead, ''}, {'ZREM', order, ''}, {'HDEL', raw, ''},
    {'SADD', groups, ''}, {'SREM', groups, ''},
    {'XGROUP', 'DESTROY', feed, group},
    {'XGROUP', 'CREATE', feed, group, '0-0', 'MKSTREAM', 'ENTRIESREAD', '0'},
}) do
    if not redis.acl_check_cmd(unpack(command)) then return {FORBIDDEN, command[1]} end
end
for i = FIRST_MEMORY, #KEYS do
    if not redis.acl_check_cmd('HSET', KEYS[i], '', '') then return {FORBIDDEN, 'HSET'} end
    if not redis.acl_check_cmd('DEL', KEYS[i]) then return {FORBIDDEN, 'DEL'} end
end
-- A key of another type is an error now, and not in the middle.
redis.call('HLEN', dead)
redis.call('ZCARD', order)
redis.call('HLEN', raw)
redis.call('SCARD', groups)
for i = FIRST_MEMORY, #KEYS do redis.call('HLEN', KEYS[i]) end

-- From here on nothing may fail.

-- Whoever has owned the partition, and comes back, can write nothing: the epoch never begins anew.
if redis.call('EXISTS', progress) == 1 then redis.call('HINCRBY', progress, 'epoch', 1) end
redis.call('HDEL', progress, 'owner', 'until', 'commit')

local function native(name)
    redis.pcall('XGROUP', 'DESTROY', feed, name)
    if not forget then
        redis.call('XGROUP', 'CREATE', feed, name, from, 'MKSTREAM', 'ENTRIESREAD', finished)
    end
end

for i = FIRST, #ARGV do
    local memory = KEYS[FIRST_MEMORY + i - FIRST]
    native(group .. '/' .. ARGV[i])
    local resets = redis.call('HINCRBY', memory, 'resets', 1)
    redis.call('DEL', memory)
    redis.call('HSET', memory, 'resets', resets)
    -- So that a consumer of the group that comes back does not make it again.
    if forget then
        redis.call('HSET', memory, 'forgotten', '1')
    else
        redis.call('HSET', memory, 'pending', '', 'delivered', from)
    end
end

if forget then
    redis.call('HDEL', progress,
        'checkpoint', 'event', 'reached', 'open', 'finished', 'start')
    redis.pcall('XGROUP', 'DESTROY', feed, group)
    redis.call('DEL', dead, order, raw, handlers)
    redis.call('SREM', groups, group)
    return {DONE}
end

redis.call('SADD', groups, group)
-- Where only handlers with parallel delivery read the feed there is nothing else to move.
local is_open = known[3] or known[4] and known[4] ~= '0-0'
if is_open or #names == 0 then
    redis.call('HSET', progress, 'checkpoint', from, 'event', '', 'reached', from, 'open', '[]',
        'finished', finished, 'start', from)
    if info['length'] then native(group) end
end

-- What lies behind comes again by itself.
local milliseconds, number = string.match(from, '^(%d+)-(%d+)$')
local padded = string.rep('0', 20 - #milliseconds) .. milliseconds .. '-'
    .. string.rep('0', 20 - #number) .. number
-- The character after the slash that ends the position.
local behind = '[' .. padded .. '0'
while true do
    local members = redis.call('ZRANGE', order, behind, '+', 'BYLEX', 'LIMIT', '0', AT_ONCE)
    if #members == 0 then return {DONE} end
    local letters = {}
    for i, member in ipairs(members) do
        letters[i] = string.gsub(string.sub(member, 1, 20), '^0+(%d)', '%1') .. '-'
            .. string.gsub(string.sub(member, 22, 41), '^0+(%d)', '%1') .. string.sub(member, 42)
    end
    redis.call('HDEL', dead, unpack(letters))
    redis.call('HDEL', raw, unpack(letters))
    redis.call('ZREM', order, unpack(members))
end
