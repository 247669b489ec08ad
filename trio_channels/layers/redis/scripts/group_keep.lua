-- As GROUP_SEND, to groups with history: appends each message to the history of its group, too.
--
-- A history is a stream. Its entries hold the token, the blob and the epoch of a message. One more entry is kept than
-- messages: the position before the oldest one that can be missed must be found.
-- The time limit of a history is renewed, and old messages are deleted, now and then only: see RENEWALS in history.py.
--
-- KEYS[1], ARGV[1...5]: see fan_out.lua
-- KEYS[2]: the epoch of the shard, see history_epoch.lua
-- KEYS[3...]: groups, and behind each its history
-- ARGV[6]: the epoch, as the sender knows it
-- ARGV[7...]: for each message its number (rising), the index of its group in KEYS, its blob, the number of entries that
--   its history keeps, and the ms for which it keeps them; negative if the history need not be renewed
-- Returns: for each message its epoch and its id in the history, or '' if it came before and was deleted since, or the
--   error that refused it. An error does not affect the other messages.

local first, width = 7, 5
-- include: fan_out.lua
local shard_epoch = ARGV[6]
-- include: expire_history.lua
-- include: epoch_of_shard.lua
local function find(history, token)
    for _, entry in ipairs(redis.call('XREVRANGE', history, '+', '-')) do
        if entry[2][2] == token then return entry[2][6] .. ' ' .. entry[1] end
    end
end
local function keep(history, token, blob, entries, kept)
    local epoch = string.match(shard_epoch, '^%S+')
    local id = redis.pcall('XADD', history, 'NOMKSTREAM', 'MAXLEN', '=', entries, '*', 't', token, 'b', blob,
        'e', epoch)
    if id and id.err then return nil, id end
    if not id then
        shard_epoch = epoch_of_shard(shard_epoch)
        epoch = string.match(shard_epoch, '^%S+')
        id = redis.call('XADD', history, '*', 't', token, 'b', blob, 'e', epoch)
        kept = math.abs(kept)
    end
    if kept > 0 then expire(history, kept) end
    return epoch .. ' ' .. id
end
local answers = {}
for at = first, #ARGV, width do
    local number, group, answer, problem = ARGV[at], ARGV[at + 1], nil, nil
    if members[group].err then
        problem = members[group]
    else
        local history, token = KEYS[tonumber(group) + 1], sender .. '-' .. number
        local came_before = tonumber(number) <= highest
        if came_before then answer = find(history, token) end
        if is_new(number) then
            if not answer then
                answer, problem = keep(history, token, ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]))
            end
            if answer then fan_out(group, token, ARGV[at + 2], 'h', answer) end
        end
    end
    answers[#answers + 1] = problem or answer or ''
end
return answers
