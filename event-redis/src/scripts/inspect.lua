#!lua flags=no-writes
-- Reads one dead letter and its raw entry.
--
-- KEYS  the dead letters, their raw entries
--
-- ARGV  the dead letter
--
-- Replies with the letter, and then with the names and values of the entry's fields. Empty where
-- there is no such letter.

local letter = redis.call('HGET', KEYS[1], ARGV[1])
if not letter then return {} end
local raw = redis.call('HGET', KEYS[2], ARGV[1])
if not raw then return {letter} end
local reply = cmsgpack.unpack(raw)
table.insert(reply, 1, letter)
return reply
