-- include: pending_state.lua
-- Acknowledges a message and deletes it, so that the stream's length is the backlog.
-- KEYS[1]: stream
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- ARGV[3]: id of the message
-- Returns: see pending_state.lua

local known = state(ARGV[3])
if known == 1 then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
    redis.call('XDEL', KEYS[1], ARGV[3])
end
return known
