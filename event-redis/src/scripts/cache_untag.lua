#!lua
-- Takes entries from under a tag, but for those that were put there again meanwhile.
--
-- KEYS  the tag of a cache
--
-- ARGV  for each entry: itself, the score with which it was found

for i = 1, #ARGV, 2 do
    local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if score and tonumber(score) == tonumber(ARGV[i + 1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
