-- Removes the values of entries that do not know of an event, and notes the event for the loads under way.
--
-- KEYS  entries of a cache
--
-- ARGV  the event: its places, as JSON; none where every value goes
--       a generation, for entries in which nothing more is noted
--
-- Replies with how many values were removed.

-- Of one entry; each is read again whenever something is noted or kept.
local MOST_NOTED = 32

local event = cjson.decode(ARGV[1])
local gone = {}
for _, entry in ipairs(KEYS) do
    local known = redis.call('HMGET', entry, 'generation', 'noted', 'asOf')
    if known[1] then
        if known[3] and not covers(cjson.decode(known[3]), event) then
            -- With its generation, so that no load that began before puts anything there.
            gone[#gone + 1] = entry
        else
            local noted = cjson.decode(known[2])
            if #event == 0 or #noted >= MOST_NOTED then
                redis.call('HSET', entry, 'generation', ARGV[2], 'noted', '[]')
            else
                noted[#noted + 1] = event
                redis.call('HSET', entry, 'noted', cjson.encode(noted))
            end
        end
    end
end
if #gone > 0 then redis.call('UNLINK', unpack(gone)) end
return #gone
