-- Fragment: sends messages to the inboxes of groups. is_new(number) says whether a message did not come before;
-- fan_out(group, token, blob, ...) sends it, with further fields, and returns the number of processes that got it. The
-- scripts set `first`, the index in ARGV of the first message, and `width`, the number of arguments of each.
--
-- A group is a hash: process -> generation of its membership. An entry carries the generation, so that a process which
-- has left and joined again knows the messages of before.
--
-- A full inbox gets a mark behind its last message: how many messages it ever refused. Further refusals replace the
-- mark. So it stands at the place of the missing messages, and is read, and read again, as safely as messages are.
--
-- While the slot moves to another cluster node, keys that have moved cannot be read. Then a message is not sent, but
-- later messages with higher numbers may be. So the script notes the number up to which messages may come late. It
-- sends such messages whenever they come; receivers recognise duplicates by their tokens.
--
-- KEYS[1]: number of the sender's last command, see once.lua; followed by the number up to which messages may be late
-- ARGV[1]: sender, a process
-- ARGV[2]: ms for which Redis remembers the number
-- ARGV[3]: common prefix of the inboxes
-- ARGV[4]: capacity of an inbox
-- ARGV[5]: lease in ms

local sender, prefix, capacity = ARGV[1], ARGV[3], tonumber(ARGV[4])
local last, count = ARGV[#ARGV - width + 1], (#ARGV - first + 1) / width
local note = redis.call('SET', KEYS[1], last, 'PX', ARGV[2], 'GET') or '0'
local highest, late_until = tonumber(note), 0
if not highest then
    highest = tonumber(string.match(note, '^%d+'))
    late_until = tonumber(string.match(note, ' (%d+)'))
end
local late = late_until
local members, lengths = {}, {}
for at = first, #ARGV, width do
    local group = ARGV[at + 1]
    local found = members[group]
    if not found then
        found = redis.pcall('HGETALL', KEYS[tonumber(group)])
        for i = 1, #found, 2 do
            local process = found[i]
            local inbox = prefix .. process
            local length = redis.pcall('XLEN', inbox)
            lengths[process] = length
            if type(length) == 'number' and length + count > capacity then
                length = redis.pcall('EXISTS', inbox .. ':state')
            end
            if type(length) == 'table' then
                found = length
                found.moves = string.find(found.err, 'non local key', 1, true)
                if found.moves then found.err = 'TRYAGAIN an inbox cannot be looked at: ' .. found.err end
                break
            end
        end
        members[group] = found
    end
    if found.moves then late = math.max(late, tonumber(ARGV[at])) end
end
if late > 0 or highest > tonumber(last) then
    note = string.format(late > 0 and '%.0f %.0f' or '%.0f', math.max(tonumber(last), highest), late)
    redis.call('SET', KEYS[1], note, 'PX', ARGV[2])
end
local function refuse(inbox)
    local state = inbox .. ':state'
    local lost = redis.call('HINCRBY', state, 'lost', 1)
    redis.call('PEXPIRE', state, ARGV[5])
    local newest = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
    if newest and newest[2][1] == 'l' then
        redis.call('HINCRBY', state, 'taken', redis.call('XDEL', inbox, newest[1]))
    end
    redis.call('XADD', inbox, 'NOMKSTREAM', '*', 'l', lost)
end
local function is_new(number) return tonumber(number) > highest or tonumber(number) <= late_until end
local function fan_out(group, token, blob, ...)
    local found, sent = members[group], 0
    for i = 1, #found, 2 do
        local process, generation = found[i], found[i + 1]
        local inbox = prefix .. process
        if lengths[process] == 'dead' then
            redis.call('HDEL', KEYS[tonumber(group)], process)
        elseif lengths[process] >= capacity then
            refuse(inbox)
        elseif redis.call('XADD', inbox, 'NOMKSTREAM', '*', 't', token, 'b', blob, 'g', generation, ...) then
            lengths[process] = lengths[process] + 1
            sent = sent + 1
        else
            lengths[process] = 'dead'
            redis.call('HDEL', KEYS[tonumber(group)], process)
        end
    end
    return sent
end
