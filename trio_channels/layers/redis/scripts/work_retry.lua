-- include: pending_state.lua
-- Gives a message to another consumer name. Any worker takes it over as soon as it has been idle for as long as that
-- worker allows. The number of deliveries stays.
-- KEYS[1]: stream
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- ARGV[3]: id of the message
-- ARGV[4]: consumer name under which it waits
-- ARGV[5]: ms for which it counts as idle already
-- Returns: see pending_state.lua

local known = state(ARGV[3])
if known == 1 then redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[4], 0, ARGV[3], 'IDLE', ARGV[5], 'JUSTID') end
return known
