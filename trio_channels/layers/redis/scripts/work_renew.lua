-- include: pending_state.lua
-- Resets the idle time of messages that a worker is handling.
-- KEYS[1]: stream
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- ARGV[3...]: ids of the messages
-- Returns: ids of those that another worker has now

local lost = {}
for i = 3, #ARGV do
    local known = state(ARGV[i])
    if known == 1 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    elseif known == 0 then
        lost[#lost + 1] = ARGV[i]
    end
end
return lost
