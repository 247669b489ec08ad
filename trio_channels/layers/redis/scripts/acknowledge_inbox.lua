-- Deletes the entries that were read. Renews the lease and inspects the inbox if ARGV[4] is 1 or there is nothing to
-- delete.
-- ATTACH_INBOX reads the number of the acknowledgement: a server with an older number has lost later data.
-- KEYS[1]: inbox
-- KEYS[2]: state of the inbox
-- ARGV[1]: first id that was not read
-- ARGV[2]: number of this acknowledgement
-- ARGV[3]: lease in ms
-- ARGV[4]: 1 to inspect the inbox
-- Returns: {} if it was not inspected; else {0 if the inbox is gone, 1 if not; server time; number of entries that
--   have left the inbox, without those that GROUP_SEND and EMPTY_INBOX deleted, or -1 before Redis 7.0}. If more left
--   than the reader has read, somebody else trims the inbox.

local trimmed = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
local look = ARGV[4] == '1' or trimmed == 0
if look and redis.call('PEXPIRE', KEYS[1], ARGV[3]) == 0 then return {0, redis.call('TIME'), -1} end
redis.call('HSET', KEYS[2], 'ack', ARGV[2])
if not look then return {} end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local left = -1
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'entries-added' then
        local taken = tonumber(redis.call('HGET', KEYS[2], 'taken')) or 0
        left = info[i + 1] - redis.call('XLEN', KEYS[1]) - taken
    end
end
return {1, redis.call('TIME'), left}
