-- Tells up to where a feed was trimmed away.
--
-- KEYS  the feed, what is known of its trimming
--
-- Replies with the position.

return trimmed_up_to(KEYS[2], info_of(KEYS[1]))
