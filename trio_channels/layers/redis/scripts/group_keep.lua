-- As GROUP_SEND, to groups with history: appends each message to the history of its group, too.
--
-- A history is a stream. Its entries hold the token, the blob and the epoch of a message. One more entry is kept than
-- messages: the position before the oldest one that can be missed must be found.
-- A send deletes only whole nodes of the stream, which is cheaper, and takes no more memory: Redis frees whole nodes only.
-- All other messages that are too many or too old are deleted when a history is read or renewed: see RENEWALS in
-- history.py.
--
-- A message that somebody may send again, who does not know that it has arrived, is sent and kept once: Redis notes its
-- answer for as long as the history keeps the message.
--
-- KEYS[1], ARGV[1...5]: see fan_out.lua
-- KEYS[2]: the epoch of the shard, see history_epoch.lua
-- KEYS[3...]: groups, and behind each its history; and notes
-- ARGV[6]: the epoch, as the sender knows it
-- ARGV[7...]: for each message its number (rising), the index of its group in KEYS, its blob, the number of entries that
--   its history keeps, the ms for which it keeps them, negative if the history need not be renewed, and the index of its
--   note in KEYS, 0 if it has none
-- Returns: for each message its epoch and its id in the history, with a hyphen between them, or '' if it came before and
--   was deleted since, or the error that refused it. An error does not affect the other messages.

local first, width = 7, 6
-- include: fan_out.lua
local shard_epoch = ARGV[6]
-- include: expire_history.lua
-- include: epoch_of_shard.lua
local epoch = string.match(shard_epoch, '^%S+')
local function find(history, token)
    for _, entry in ipairs(redis.pcall('XREVRANGE', history, '+', '-')) do
        if entry[2][2] == token then return entry[2][6] .. '-' .. entry[1] end
    end
end
local function keep(history, token, blob, entries, kept)
    local id = redis.pcall('XADD', history, 'NOMKSTREAM', 'MAXLEN', '~', entries, '*', 't', token, 'b', blob,
        'e', epoch)
    if id and id.err then return nil, id end
    if not id then
        shard_epoch = epoch_of_shard(shard_epoch)
        epoch = string.match(shard_epoch, '^%S+')
        id = redis.call('XADD', history, '*', 't', token, 'b', blob, 'e', epoch)
        kept = math.abs(kept)
    end
    if kept > 0 then expire(history, kept, entries) end
    return epoch .. '-' .. id
end
local answers = {}
for at = first, #ARGV, width do
    local number, group, note = ARGV[at], ARGV[at + 1], KEYS[tonumber(ARGV[at + 5])]
    local answer = note and redis.pcall('GET', note)
    if not answer then
        if members[group].err then
            answer = members[group]
        else
            local history, token, problem = KEYS[tonumber(group) + 1], sender .. '-' .. number, nil
            if tonumber(number) <= highest then answer = find(history, token) end
            if is_new(number) then
                local blob = ARGV[at + 2]
                if not answer then answer, problem = keep(history, token, blob, ARGV[at + 3], tonumber(ARGV[at + 4])) end
                if answer then fan_out(group, token, blob, 'h', answer) end
            end
            answer = problem or answer or ''
        end
        if note and type(answer) == 'string' and answer ~= '' then
            redis.call('SET', note, answer, 'PX', math.abs(ARGV[at + 4]))
        end
    end
    answers[#answers + 1] = answer
end
return answers
