-- include: pending_state.lua
-- include: dead_letter.lua
-- Makes a message a dead letter.
-- KEYS[1]: stream
-- KEYS[2]: dead letters
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- ARGV[3]: id of the message
-- ARGV[4]: number of its deliveries
-- ARGV[5]: the reason, a blob
-- ARGV[6]: how many dead letters are kept
-- Returns: see pending_state.lua and dead_letter.lua

local known = state(ARGV[3])
if known ~= 1 then return known end
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
return bury(ARGV[3], entry and entry[2] or {}, ARGV[4], ARGV[5], ARGV[6])
