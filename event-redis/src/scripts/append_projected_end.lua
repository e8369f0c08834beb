end

local key_count, argument_count = tonumber(ARGV[1]), tonumber(ARGV[2])
local event_count, projections = tonumber(ARGV[3]), tonumber(ARGV[4])
local own_keys, own_arguments = {}, {}
for i = 1, key_count do own_keys[i] = KEYS[i] end
for i = 1, argument_count do own_arguments[i] = ARGV[4 + i] end

local plans = {}
local at_key, at = key_count + 1, 5 + argument_count
for i = 1, projections do
    plans[i], at_key, at = read_writes(KEYS, at_key, ARGV, at)
    local left = redis.call('XRANGE', KEYS[1], '(' .. plans[i].checkpoint, '+', 'COUNT', '1')
    local at_end = #left == 0
    if at_end then
        -- What is not there may have been trimmed away, and not been taken in.
        at_end = (info_of(KEYS[1])['last-generated-id'] or '0-0') == plans[i].checkpoint
    end
    plans[i].at_end = at_end
end

local reply = append(own_keys, own_arguments)
local is_stored = reply[1] == 0
local position = is_stored and reply[2 + event_count]
local replies = {reply}
for i = 1, projections do
    local plan = plans[i]
    local state = state_of(plan.known)
    if is_stored and state and plan.at_end and not plan.wrong then
        write_projection(plan, position)
        replies[i + 1] = WRITTEN
    elseif state and redis.call('HGET', plan.versions, 'served') == plan.version then
        replies[i + 1] = BEHIND
    else
        replies[i + 1] = UNREAD
    end
end
return replies
