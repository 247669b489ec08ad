-- Reads a history; one that does not exist begins, with an entry that is no message, so that it has a newest position.
-- KEYS[1]: history
-- KEYS[2]: the epoch of the shard, see history_epoch.lua
-- ARGV[1]: the epoch, as the reader knows it
-- ARGV[2]: id of an entry, which comes first, and then those behind it; '' for the newest entries, newest first
-- ARGV[3]: how many entries
-- ARGV[4]: ms for which the history keeps messages
-- ARGV[5]: token of the first entry of a new history
-- ARGV[6]: the number of entries that the history keeps
-- Returns: {epoch; ms of the latest time that is too old; newest entry; entries}

-- include: expire_history.lua
-- include: epoch_of_shard.lua
local epoch = string.match(epoch_of_shard(ARGV[1]), '^%S+')
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('XADD', KEYS[1], '*', 't', ARGV[5], 'a', '', 'e', epoch) end
local oldest = expire(KEYS[1], tonumber(ARGV[4]), ARGV[6])
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local entries = {}
if ARGV[3] ~= '0' and ARGV[2] ~= '' then
    entries = redis.call('XRANGE', KEYS[1], ARGV[2], '+', 'COUNT', ARGV[3])
elseif ARGV[3] ~= '0' then
    entries = redis.call('XREVRANGE', KEYS[1], '+', '(' .. oldest, 'COUNT', ARGV[3])
end
return {epoch, oldest, newest, entries}
