#!lua flags=allow-oom
-- Does nothing. The server refuses the call where the client may not use a key.
--
-- KEYS  any

return 0
