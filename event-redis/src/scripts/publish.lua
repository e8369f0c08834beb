#!lua
-- Publishing on commit: what stands in front of every script that does so.

-- Who numbers what is published: a name that no numbers were given under which may be given again.
-- They are, where the hash was deleted or is that of another database, and where a server has come
-- back or has taken over without the last numbers that were given out.
local function current_incarnation(published)
    -- A client that may not ask cannot tell one run of the server from another.
    local info = redis.pcall('INFO', 'server')
    local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
    local known = redis.pcall('HGET', published, 'incarnation')
    if type(known) == 'string' and (not run or string.match(known, '%x+$') == run) then
        return known
    end
    local time = redis.pcall('TIME')
    local name = string.format('%s.%s-%s', time[1] or '0', time[2] or '0', run or '0')
    redis.pcall('HSET', published, 'incarnation', name)
    return name
end

-- Publishes an event, whose message is given up to the name of its publisher. Gives why it was not
-- published, if so.
local function publish_event(published, incarnation, channel, head)
    local number = redis.pcall('HINCRBY', published, channel, 1)
    if type(number) == 'table' then return number.err end
    local sent = redis.pcall('PUBLISH', channel,
        head .. ':' .. incarnation .. string.format('","sequence":%d}', number))
    return type(sent) == 'table' and sent.err or nil
end

