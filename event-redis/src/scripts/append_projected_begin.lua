-- Appends as append.lua does, and writes in the same step what the events lead to in some projections: where
-- the checkpoint of one is at the end of the partition, and all of the events are new.
--
-- KEYS  those of append.lua
--       for each projection: as project.lua says
--
-- ARGV  how many of the keys, and how many of the arguments behind these four, are those of append.lua
--       how many events there are, and how many projections
--       those of append.lua
--       for each projection: as project.lua says
--
-- Replies with what append.lua replies, and then for each projection
--   0 written      the events are in its state now
--   1 behind       it is the version that is read, and has yet to take them in
--   2 unread       it has yet to take them in, and nobody reads it; or it is not there

local WRITTEN, BEHIND, UNREAD = 0, 1, 2

local function append(KEYS, ARGV)
