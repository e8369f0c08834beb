#!lua flags=allow-oom
-- Drops what was delivered from an outbox, and reads what comes next.
--
-- KEYS  the outbox
--
-- ARGV  up to which number was delivered; 0 where that is not known
--       how many records to read at most, and about how many bytes
--
-- Replies with the records, as XRANGE does.

local outbox, delivered = KEYS[1], tonumber(ARGV[1])
local most, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])

if delivered > 0 then
    redis.call('XTRIM', outbox, 'MINID', string.format('%d-0', delivered + 1))
    -- The numbers that were given out are kept elsewhere.
    if redis.call('XLEN', outbox) == 0 then redis.call('DEL', outbox) end
end

-- Each time twice as many, so that large records are not read for nothing.
local records, bytes, from, count = {}, 0, '-', 1
while #records < most and bytes < most_bytes do
    count = math.min(count, most - #records)
    local some = redis.call('XRANGE', outbox, from, '+', 'COUNT', count)
    for _, record in ipairs(some) do
        records[#records + 1] = record
        for _, text in ipairs(record[2]) do bytes = bytes + #text end
    end
    if #some < count then break end
    from, count = '(' .. some[#some][1], count * 2
end
return records
