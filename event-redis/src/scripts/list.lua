#!lua flags=no-writes
-- Reads dead letters in their order.
--
-- KEYS  the dead letters, their order
--
-- ARGV  after which one, as it stands in the order; empty: from the first
--       at most how many
--
-- Replies with the last one as it stands in the order, and then with each letter. Empty where there
-- are none.

local from = '-'
if ARGV[1] ~= '' then from = '(' .. ARGV[1] end
local members = redis.call('ZRANGE', KEYS[2], from, '+', 'BYLEX', 'LIMIT', '0', ARGV[2])
if #members == 0 then return {} end

-- `<time>-<number>/<handler>`, as it is called where it is not padded.
local fields = {}
for i, member in ipairs(members) do
    fields[i] = string.gsub(string.sub(member, 1, 20), '^0+(%d)', '%1') .. '-'
        .. string.gsub(string.sub(member, 22, 41), '^0+(%d)', '%1') .. string.sub(member, 42)
end
local reply = redis.call('HMGET', KEYS[1], unpack(fields))
table.insert(reply, 1, members[#members])
return reply
