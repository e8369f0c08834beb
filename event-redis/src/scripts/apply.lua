-- Writes to a projection what a piece of a partition leads to, and moves the checkpoint behind it: all of it
-- or nothing, and only where the checkpoint is where the writer believes it to be.
--
-- Everything is checked before the first write, since Redis does not roll a script back.
--
-- KEYS  as project.lua says
--
-- ARGV  where the checkpoint must be, and where it is afterwards
--       as project.lua says
--
-- Replies with a status, and
--   0 written      nothing
--   1 moved        where the checkpoint is
--   2 no count     the key and the field that cannot be incremented
--   3 unknown      nothing: there is no such version

local WRITTEN, MOVED, NO_COUNT, UNKNOWN = 0, 1, 2, 3

local plan = read_writes(KEYS, 1, ARGV, 3)
if not state_of(plan.known) then return {UNKNOWN} end
if plan.checkpoint ~= ARGV[1] then return {MOVED, plan.checkpoint} end
if plan.wrong then return {NO_COUNT, plan.wrong[1], plan.wrong[2]} end
write_projection(plan, ARGV[2])
return {WRITTEN}
