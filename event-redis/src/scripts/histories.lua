#!lua flags=no-writes
-- Finds histories of a partition, some at a time.
--
-- KEYS  the feed, by which the node of a cluster is found that has the partition
--
-- ARGV  where the server has stopped, the pattern of their keys, how many keys it looks at
--
-- Replies with where the server has stopped now, and the keys that it has found.

return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
