-- Renews a history before it is read; one that does not exist begins, with an entry that is no message, so that it has a
-- newest position. The entries are read by a command behind this one: a script's answer is converted twice, which takes
-- Redis four times as long.
-- KEYS[1]: history
-- KEYS[2]: the epoch of the shard, see history_epoch.lua
-- ARGV[1]: the epoch, as the reader knows it
-- ARGV[2]: ms for which the history keeps messages
-- ARGV[3]: the number of entries that it keeps
-- ARGV[4]: token of the first entry of a new history
-- Returns: {epoch; ms of the latest time that is too old; newest entry}

-- include: expire_history.lua
-- include: epoch_of_shard.lua
local epoch = string.match(epoch_of_shard(ARGV[1]), '^%S+')
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('XADD', KEYS[1], '*', 't', ARGV[4], 'a', '', 'e', epoch) end
local oldest = expire(KEYS[1], tonumber(ARGV[2]), ARGV[3])
return {epoch, oldest, redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]}
