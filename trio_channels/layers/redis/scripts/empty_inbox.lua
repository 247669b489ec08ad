-- Deletes all messages of an inbox.
-- KEYS[1]: inbox
-- KEYS[2]: state of the inbox
-- ARGV[1]: 1 to tell the owner, by a mark in the inbox
-- Returns: number of messages deleted

local waiting = redis.call('XLEN', KEYS[1])
redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
redis.call('HINCRBY', KEYS[2], 'taken', waiting)
if ARGV[1] == '1' then
    local lost = redis.call('HINCRBY', KEYS[2], 'lost', waiting)
    redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'l', lost, 'f', '1')
end
return waiting
