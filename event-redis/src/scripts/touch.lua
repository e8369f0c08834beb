#!lua
-- Sets for how long entries have been idle, as far as they are pending for a consumer.
--
-- KEYS  the feed
--
-- ARGV  the group, the consumer
--       for how long, in milliseconds
--       the positions, in order
--
-- Replies with how many there were.

-- Lua cannot hand over more than some thousands of arguments at once.
local AT_ONCE = 1000
local FIRST = 4

local feed, group, consumer, idle = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

local own = {}
local from, to = ARGV[FIRST], ARGV[#ARGV]
while true do
    local found = redis.pcall('XPENDING', feed, group, from, to, AT_ONCE, consumer)
    if found.err then
        -- Whoever reads makes the group again.
        if string.find(found.err, '^NOGROUP') then return 0 end
        return found
    end
    for _, entry in ipairs(found) do own[entry[1]] = true end
    if #found < AT_ONCE then break end
    from = '(' .. found[#found][1]
end

local count = 0
local command = {'XCLAIM', feed, group, consumer, '0'}
local function touch()
    if #command == 5 then return end
    count = count + #command - 5
    command[#command + 1] = 'IDLE'
    command[#command + 1] = idle
    command[#command + 1] = 'JUSTID'
    redis.call(unpack(command))
    command = {'XCLAIM', feed, group, consumer, '0'}
end
for n = FIRST, #ARGV do
    if own[ARGV[n]] then command[#command + 1] = ARGV[n] end
    if #command > AT_ONCE then touch() end
end
touch()
return count
