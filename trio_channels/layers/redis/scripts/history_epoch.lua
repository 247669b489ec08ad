-- Finds the epoch of the histories of a shard. A new one begins when messages may have been lost: Redis was started again
-- without its append-only file, or a replica was promoted. Each connection asks before it sends.
-- KEYS[1]: the epoch, and the replication id of the server that had it
-- ARGV[1]: a new epoch
-- Returns: the epoch and the replication id

local replication = redis.pcall('INFO', 'replication')
if type(replication) == 'table' then return redis.error_reply('NOPERM the right +info: ' .. replication.err) end
local id = string.match(replication, 'master_replid:(%x+)')
local note = redis.call('GET', KEYS[1])
if note then
    local epoch, known = string.match(note, '^(%S+) (%S+)$')
    if known == id then return note end
    local promoted = not string.find(replication, 'master_replid2:' .. string.rep('0', 40), 1, true)
    local keeps_all = string.find(redis.call('INFO', 'persistence'), 'aof_enabled:1', 1, true)
    note = epoch and keeps_all and not promoted and epoch .. ' ' .. id
end
note = note or ARGV[1] .. ' ' .. id
redis.call('SET', KEYS[1], note)
return note
