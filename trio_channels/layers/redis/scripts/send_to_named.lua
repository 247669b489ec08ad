-- Sends a message to a named channel. A full stream drops expired messages that were never delivered; messages that
-- were delivered to a consumer do not expire.
-- KEYS[1]: stream
-- KEYS[2]: sorted set of tokens by time
-- ARGV[1]: capacity of the stream
-- ARGV[2]: token
-- ARGV[3]: blob
-- ARGV[4]: expiry of the stream in ms
-- ARGV[5]: expiry of a message in ms
-- ARGV[6]: ms for which Redis remembers a token
-- Returns: {1 if accepted, now or before, 0 if full; number of expired messages that it deleted}

if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return {1, 0} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expired = 0
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    local unread = '-'
    for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
        for i = 1, #row, 2 do if row[i] == 'last-delivered-id' then unread = '(' .. row[i + 1] end end
    end
    local oldest = string.format('%.0f', math.max(now - ARGV[5] - 1, 0))
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], unread, oldest, 'COUNT', 1000)) do
        expired = expired + redis.call('XDEL', KEYS[1], entry[1])
    end
    if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return {0, expired} end
end
redis.call('XADD', KEYS[1], '*', 'b', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - ARGV[6]))
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return {1, expired}
