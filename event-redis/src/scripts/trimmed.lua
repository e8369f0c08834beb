-- What was trimmed away: what stands, behind stream.lua, in front of every script that must know it.

-- Up to where a feed was trimmed away.
local function trimmed_up_to(trimmed, info)
    local known = redis.call('HMGET', trimmed, 'position', 'removed')
    local up_to = known[1] or '0-0'
    local removed = (info['entries-added'] or 0) - (info['length'] or 0)
    if removed <= tonumber(known[2] or 0) then return up_to end
    -- Somebody else has removed more. What was deleted behind the first entry is not trimmed away.
    local theirs = '0-0'
    local first = info['first-entry']
    if not first then
        theirs = info['last-generated-id']
    elseif before(info['max-deleted-entry-id'] or '0-0', first[1]) then
        theirs = preceding(first[1])
    end
    if before(up_to, theirs) then return theirs end
    return up_to
end

