-- Acknowledges a message of a named channel and deletes it, so that the stream's length is the backlog.
-- KEYS[1]: stream
-- KEYS[2]: the consumer's note: the id that it acknowledged last
-- ARGV[1]: consumer group
-- ARGV[2]: consumer
-- ARGV[3]: id of the message
-- ARGV[4]: expiry of the note in ms
-- Returns: {1 acknowledged, now or before, 0 another consumer has or had it; server time}

if redis.call('GET', KEYS[2]) ~= ARGV[3] then
    local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
    -- An error means that the stream or the consumer group is gone: no other consumer can have the message.
    if not pending.err then
        if not pending[1] or pending[1][2] ~= ARGV[2] then return {0, redis.call('TIME')} end
        redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
        redis.call('XDEL', KEYS[1], ARGV[3])
    end
    redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
end
return {1, redis.call('TIME')}
