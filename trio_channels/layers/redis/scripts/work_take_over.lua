-- include: dead_letter.lua
-- Takes over the messages of silent workers, and buries those that were delivered too often.
-- A script rather than XAUTOCLAIM: no other worker can come between the check of the deliveries and its consequence,
-- and messages that are being handled do not hide those behind them.
-- KEYS[1]: stream
-- KEYS[2]: dead letters
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- ARGV[3]: ms after which a silent worker counts as dead
-- ARGV[4]: how many messages to take
-- ARGV[5]: deliveries after which a message becomes a dead letter
-- ARGV[6]: the reason for those, a blob
-- ARGV[7]: how many dead letters are kept
-- Returns: {for each message taken {id, fields, deliveries, previous owner}; ids of the new dead letters}

local taken, buried = {}, {}
local most = tonumber(ARGV[4])
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', 2 * most + 10)) do
    local id, owner, deliveries = row[1], row[2], row[4]
    if owner ~= ARGV[2] and #taken < most then
        local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
        if not entry then
            redis.call('XACK', KEYS[1], ARGV[1], id)
        elseif deliveries >= tonumber(ARGV[5]) then
            bury(id, entry[2], deliveries, ARGV[6], ARGV[7])
            buried[#buried + 1] = id
        else
            redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)
            taken[#taken + 1] = {id, entry[2], deliveries + 1, owner}
        end
    end
end
return {taken, buried}
