-- Gives back the pending messages of a worker, and deletes it and other idle workers that have none.
-- A message that is given back does not count as delivered.
-- KEYS[1]: stream
-- ARGV[1]: consumer group
-- ARGV[2]: worker
-- ARGV[3]: consumer name under which the messages wait
-- ARGV[4]: ms for which they count as idle already
-- ARGV[5]: ms after which an idle worker is deleted
-- Returns: number of messages given back

local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
if pending.err then return 0 end
for _, row in ipairs(pending) do
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, row[1], 'IDLE', ARGV[4], 'RETRYCOUNT', row[4] - 1, 'JUSTID')
end
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local seen = {}
    for i = 1, #row, 2 do seen[row[i]] = row[i + 1] end
    if seen.pending == 0 and (seen.name == ARGV[2] or seen.idle > tonumber(ARGV[5])) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], seen.name)
    end
end
return #pending
