-- Fragment: bury(id, fields, deliveries, why, most) makes a message a dead letter.
-- Returns: 1; 3 if the oldest dead letter was deleted to make room
-- KEYS[1]: stream
-- KEYS[2]: dead letters
-- ARGV[1]: consumer group

local function bury(id, fields, deliveries, why, most)
    local full = redis.call('XLEN', KEYS[2]) >= tonumber(most)
    local blob = ''
    for i = 1, #fields, 2 do if fields[i] == 'b' then blob = fields[i + 1] end end
    redis.call('XADD', KEYS[2], 'MAXLEN', most, '*', 'b', blob, 'n', deliveries, 'w', why)
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('XDEL', KEYS[1], id)
    if full then return 3 end
    return 1
end
