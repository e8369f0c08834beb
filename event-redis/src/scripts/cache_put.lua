-- Keeps a value, unless it may be older than what is known.
--
-- KEYS  the entry of a cache
--
-- ARGV  the generation that the entry had when the load began; empty where nothing was begun
--       how many invalidations were noted in it then
--       the value
--       for how long it is kept, in milliseconds
--       up to where it knows events, as JSON
--       the generation of the entry, if it is new
--
-- Replies with 1; with 0 where the value is not kept:
--   the entry has gone meanwhile, or was made anew: an event has invalidated it, or the load took too long
--   an event was noted meanwhile that the value does not know of
--   the value that is kept knows more

local entry, began = KEYS[1], ARGV[1]
local as_of = cjson.decode(ARGV[5])
local known = redis.call('HMGET', entry, 'generation', 'noted', 'asOf')
if began ~= '' and known[1] ~= began then return 0 end
if known[1] then
    local noted = cjson.decode(known[2])
    for i = tonumber(ARGV[2]) + 1, #noted do
        if not covers(as_of, noted[i]) then return 0 end
    end
end
if known[3] then
    for place, number in pairs(cjson.decode(known[3])) do
        if as_of[place] and as_of[place] < number then return 0 end
    end
end
if began == '' then
    -- What is being loaded may be older than this.
    redis.call('HSET', entry, 'generation', ARGV[6], 'noted', '[]')
end
redis.call('HSET', entry, 'value', ARGV[3], 'asOf', ARGV[5])
redis.call('PEXPIRE', entry, ARGV[4])
return 1
