-- Whether a value knows of an event: what stands in front of scripts that ask.

-- An event is a list of its places, its aggregate before its partition: each with its number there, written so that
-- the order of the texts is that of the numbers. A value has, by place, the number up to which it knows all. Of an
-- event whose aggregate it names, the aggregate alone decides.
local function covers(as_of, event)
    for _, place in ipairs(event) do
        local known = as_of[place[1]]
        if known then return not (known < place[2]) end
    end
    return false
end
