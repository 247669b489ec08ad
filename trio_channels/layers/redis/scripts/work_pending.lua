-- Lists the messages that are pending for a worker.
-- KEYS[1]: stream
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- Returns: for each message {id, fields, number of deliveries}

local mine = {}
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])) do
    local entry = redis.call('XRANGE', KEYS[1], row[1], row[1])[1]
    if entry then
        mine[#mine + 1] = {row[1], entry[2], row[4]}
    else
        redis.call('XACK', KEYS[1], ARGV[1], row[1])
    end
end
return mine
