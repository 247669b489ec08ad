-- Creates the inbox if it does not exist, and renews its lease.
-- KEYS[1]: inbox
-- KEYS[2]: state of the inbox
-- ARGV[1]: lease in ms
-- ARGV[2]: id of an entry
-- Returns: {whether the inbox existed, last id that it ever generated, server time, messages refused so far,
--   number of the last acknowledgement, whether the entry exists}

local existed = redis.call('EXISTS', KEYS[1])
if existed == 0 then
    redis.call('DEL', KEYS[2])
    local id = redis.call('XADD', KEYS[1], '*', 'new', '1')
    redis.call('XDEL', KEYS[1], id)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local last
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
end
local state = redis.call('HMGET', KEYS[2], 'lost', 'ack')
local there = #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
return {existed, last, redis.call('TIME'), tonumber(state[1]) or 0, tonumber(state[2]) or 0, there}
