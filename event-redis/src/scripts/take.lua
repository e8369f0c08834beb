#!lua
-- Drops what was delivered from an outbox, and reads what comes next.
--
-- KEYS  the outbox
--
-- ARGV  up to which number was delivered; 0 where that is not known
--       how many records to read at most
--
-- Replies with the records, as XRANGE does.

local outbox, delivered = KEYS[1], tonumber(ARGV[1])

if delivered > 0 then
    redis.call('XTRIM', outbox, 'MINID', string.format('%d-0', delivered + 1))
    -- The numbers that were given out are kept elsewhere.
    if redis.call('XLEN', outbox) == 0 then redis.call('DEL', outbox) end
end
return redis.call('XRANGE', outbox, '-', '+', 'COUNT', ARGV[2])
