-- Fragment: state(id) says whether a message is pending for this worker.
-- Returns: 1 pending for it; 0 pending for another worker; 2 not pending: settled before, or lost with Redis' data
-- KEYS[1]: stream
-- ARGV[1]: consumer group
-- ARGV[2]: worker

local function state(id)
    local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
    if pending.err or not pending[1] then return 2 end
    if pending[1][2] ~= ARGV[2] then return 0 end
    return 1
end
