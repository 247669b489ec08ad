-- Deletes a consumer, unless messages are pending for it.
-- KEYS[1]: stream
-- KEYS[2]: the consumer's note
-- ARGV[1]: consumer group
-- ARGV[2]: consumer
-- Returns: 1 deleted, 0 not

redis.call('DEL', KEYS[2])
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
for _, row in ipairs(consumers) do
    local name, pending
    for i = 1, #row, 2 do
        if row[i] == 'name' then name = row[i + 1] elseif row[i] == 'pending' then pending = row[i + 1] end
    end
    if name == ARGV[2] and pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
        return 1
    end
end
return 0
