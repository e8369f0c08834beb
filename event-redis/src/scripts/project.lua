-- What writes to projections, for the scripts that do so. It is put before them.
--
-- What is written takes, beginning somewhere in the keys and the arguments of a script,
--
-- keys  the versions, the checkpoints and the names of the keys of the projection
--       for each key that is written: its document, its fields
--
-- args  the version, the partition
--       how many keys are written
--       for each of them: its name, 1 where it is removed first, 1 where it gets a document, and that
--         how many fields are incremented, each with by how much
--         how many fields are set, each with its value
--         how many fields are removed, each of them

-- Up to here readers in every language know the exact value.
local MOST = 9007199254740991
-- Lua cannot hand over more than some thousands of arguments at once. An even number.
local AT_ONCE_PROJECTED = 1000

-- `live` or `filling`; else nothing can be written.
local function state_of(known)
    local state = known and string.match(known, '^%a+')
    if state == 'live' or state == 'filling' then return state end
end

-- What a field counts after `by` was added; nothing where it holds no whole number, or the sum is too large.
local function incremented(before, by)
    if not before then before = '0' end
    local number = #before <= 17 and string.match(before, '^%-?%d+$') and tonumber(before)
    local after = number and number + tonumber(by)
    if not after or number > MOST or number < -MOST or after > MOST or after < -MOST then return nil end
    return string.format('%.0f', after)
end

-- Reads what is to be written, and looks whether it can be. Gives that, and where the next keys and
-- arguments begin; without it where a field is no count: which key and field.
local function read_writes(keys, at_key, args, at)
    local plan = {
        versions = keys[at_key], version = args[at],
        known = redis.call('HGET', keys[at_key], args[at]),
        checkpoints = keys[at_key + 1], names = keys[at_key + 2],
        partition = args[at + 1], items = {},
    }
    at_key = at_key + 3
    plan.checkpoint = redis.call('HGET', plan.checkpoints, plan.partition) or '0-0'
    local count = tonumber(args[at + 2])
    local wrong
    at = at + 3
    for i = 1, count do
        local item = {name = args[at], document = keys[at_key], fields = keys[at_key + 1]}
        at_key = at_key + 2
        item.removed = args[at + 1] == '1'
        local sets = {}
        if args[at + 2] == '1' then
            item.value = args[at + 3]
            at = at + 4
        else
            at = at + 3
        end
        local increments = tonumber(args[at])
        at = at + 1
        if increments == 1 then
            local before = redis.call('HGET', item.fields, args[at])
            local after = incremented(before, args[at + 1])
            if not after then wrong = wrong or {item.name, args[at]} end
            sets[1], sets[2] = args[at], after
            -- Its name is known already.
            item.is_named = before
        else for from = 1, increments, AT_ONCE_PROJECTED do
            local to = math.min(from + AT_ONCE_PROJECTED - 1, increments)
            local fields = {}
            for j = from, to do fields[#fields + 1] = args[at + 2 * (j - 1)] end
            local found = redis.call('HMGET', item.fields, unpack(fields))
            for j = 1, #fields do
                local after = incremented(found[j], args[at + 2 * (from + j - 2) + 1])
                if not after then wrong = wrong or {item.name, fields[j]} end
                sets[#sets + 1] = fields[j]
                sets[#sets + 1] = after
                item.is_named = item.is_named or found[j]
            end
        end end
        at = at + 2 * increments
        local values = tonumber(args[at])
        for j = at + 1, at + 2 * values do sets[#sets + 1] = args[j] end
        at = at + 2 * values + 1
        local removed = tonumber(args[at])
        local removals
        if removed > 0 then removals = {} end
        for j = at + 1, at + removed do removals[#removals + 1] = args[j] end
        at = at + removed + 1
        item.sets, item.removals = sets, removals
        plan.items[i] = item
    end
    if wrong then plan.wrong = wrong end
    return plan, at_key, at
end

local function in_parts(command, key, values)
    for from = 1, #values, AT_ONCE_PROJECTED do
        local to = math.min(from + AT_ONCE_PROJECTED - 1, #values)
        redis.call(command, key, unpack(values, from, to))
    end
end

-- Writes it, and moves the checkpoint.
local function write_projection(plan, to)
    local there, gone = {}, {}
    for _, item in ipairs(plan.items) do
        if item.removed then redis.call('DEL', item.document, item.fields) end
        if item.value then redis.call('SET', item.document, item.value) end
        if item.removals then in_parts('HDEL', item.fields, item.removals) end
        local sets = item.sets
        if #sets == 2 then
            redis.call('HSET', item.fields, sets[1], sets[2])
        else
            in_parts('HSET', item.fields, sets)
        end
        if item.is_named then
            -- Nothing to do.
        elseif item.value or #sets > 0 then
            there[#there + 1] = '0'
            there[#there + 1] = item.name
        elseif redis.call('EXISTS', item.document, item.fields) == 0 then
            gone[#gone + 1] = item.name
        end
    end
    in_parts('ZADD', plan.names, there)
    in_parts('ZREM', plan.names, gone)
    redis.call('HSET', plan.checkpoints, plan.partition, to)
end
