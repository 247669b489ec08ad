-- Fragment: epoch_of_shard(known) returns the epoch of the shard; the caller's if somebody has deleted it.
-- KEYS[2]: the epoch of the shard, see history_epoch.lua

local function epoch_of_shard(known)
    local stored = redis.call('GET', KEYS[2])
    if not stored then redis.call('SET', KEYS[2], known) end
    return stored or known
end
